"""A Hugging Face folder: its config, and its tensors, each read when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from megatron.basics.errors import UserError
from megatron.basics.file_bounds import SETTINGS_BYTES, VOCABULARY_BYTES, refuse_large
from megatron.conversion.pickled_file import PickledFile
from megatron.conversion.tensor_file import BrokenFile, StoredTensor, TensorFile

CONFIG = "config.json"
INDEX_ENDING = ".index.json"
ADAPTER = "adapter_config.json"
# As transformers looks for them; the pickled ones are of old.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
VOCABULARIES = ("tokenizer.json", "vocab.json")
MOST_NAMED = 5  # faults of one kind that are told one by one


class TensorSource(Protocol):
    """A file of tensors."""

    tensors: dict[str, StoredTensor]

    @property
    def data_size(self) -> int:
        """Bytes of all tensors."""

    def read_box(self, name: str, origin: Sequence[int], shape: Sequence[int]) -> Tensor:
        """The part of a tensor of that shape which begins at `origin`, on the host."""


@dataclass(frozen=True)
class HfFolder:
    """config: as it stands in config.json. tensors: by name; only their names, dtypes and shapes are in memory."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]
    _files: dict[str, TensorSource]

    @classmethod
    def open(cls, path: Path) -> HfFolder:
        """Read config.json and all headers. Raises UserError with every fault of files, index and headers.

        Whatever else reads JSON in the folder, transformers too, may rely on its size from here on.
        """
        for file in sorted(path.glob("*.json")):
            refuse_large(file, VOCABULARY_BYTES if file.name in VOCABULARIES else SETTINGS_BYTES)
        config = _read_config(path)
        files = _open_files(path)
        tensors = {name: stored for file in files.values() for name, stored in file.tensors.items()}
        owners = {name: file for file in files.values() for name in file.tensors}
        return cls(path, config, tensors, owners)

    def read(self, name: str) -> Tensor:
        """A tensor on the host, in the dtype of the folder."""
        shape = self.tensors[name].shape
        return self.read_box(name, (0,) * len(shape), shape)

    def read_box(self, name: str, origin: Sequence[int], shape: Sequence[int]) -> Tensor:
        """The part of such a tensor of that shape which begins at `origin`."""
        try:
            return self._files[name].read_box(name, origin, shape)
        except BrokenFile as fault:
            raise UserError(f"{self.path} {fault}; download or save it again.") from fault


def shown(faults: list[str]) -> list[str]:
    """The first faults of a kind, and how many more there are."""
    more = len(faults) - MOST_NAMED
    return [*faults[:MOST_NAMED], f"... and {more} more like the last one."] if more > 0 else faults


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if (folder / ADAPTER).exists():
        raise UserError(
            f"{folder} holds an adapter ({ADAPTER}), which changes weights that it is loaded on; merge it into them "
            "with peft's merge_and_unload, and give the folder that save_pretrained makes of that."
        )
    if not path.is_file():
        raise UserError(f"{folder} has no {CONFIG}; give a folder that save_pretrained wrote.")
    config = _json_object(path)
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"{path} does not say its model_type; it is not the config of a model.")
    if config.get("quantization_config"):
        raise UserError(f"{path}: quantized weights cannot be converted; give the folder that they were made of.")
    return config


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object.")
    return content


def _open_files(folder: Path) -> dict[str, TensorSource]:
    """Every file with weights, by its name."""
    for single in WEIGHTS:
        index = folder / f"{single}{INDEX_ENDING}"
        if (folder / single).is_file():
            if index.is_file():
                raise UserError(f"{folder} holds {single} and {index.name}; remove the one that is not meant.")
            return {single: _open(folder / single)}
        if index.is_file():
            return _open_indexed(index)
    raise UserError(
        f"{folder} has no weights ({', '.join(WEIGHTS)}, or one of them with {INDEX_ENDING}); download or save "
        "it again."
    )


def _open(path: Path) -> TensorSource:
    try:
        return TensorFile(path) if path.suffix == ".safetensors" else PickledFile(path)
    except BrokenFile as fault:
        is_pickle = path.suffix == ".bin"
        mend = "save it as safetensors where you trust it" if is_pickle else "download or save it again"
        raise UserError(f"{path} {fault}; {mend}.") from fault


def _open_indexed(path: Path) -> dict[str, TensorSource]:
    """The files that an index names. Raises UserError for all in which it disagrees with them."""
    index = _json_object(path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise UserError(f"{path} has no weight_map of tensors and files; download or save the folder again.")
    names = sorted(set(weight_map.values()))
    faults = [
        f"{path} names a file outside of its folder: {name}."
        for name in names
        if Path(name).name != name or Path(name).suffix not in (".safetensors", ".bin")
    ]
    if faults:
        raise UserError(*shown(faults))
    missing = [
        f"{path.parent / name} is missing, and {path.name} names it; download or save the folder again."
        for name in names
        if not (path.parent / name).is_file()
    ]
    if missing:
        raise UserError(*shown(missing))
    files: dict[str, TensorSource] = {}
    for name in names:
        try:
            files[name] = _open(path.parent / name)
        except UserError as error:
            faults += error.faults
    if not faults:
        faults = shown([*_disagreements(path, weight_map, files)]) or [*_wrong_size(path, index, files)]
    if faults:
        raise UserError(*faults)
    return files


def _disagreements(path: Path, weight_map: Mapping[str, str], files: Mapping[str, TensorSource]) -> Iterator[str]:
    """A sentence for each tensor that is not where the index says, or of which it says nothing."""
    owners: dict[str, list[str]] = {}
    for file, source in files.items():
        for tensor in source.tensors:
            owners.setdefault(tensor, []).append(file)
    for tensor, file in weight_map.items():
        there = owners.get(tensor, [])
        if file not in there:
            where = f"it stands in {there[0]}" if there else "no file has it"
            yield f"{path.name} says that {tensor} is in {file}, but {where}; download or save the folder again."
    for tensor, there in owners.items():
        if tensor not in weight_map:
            yield f"{there[0]} has {tensor}, of which {path.name} says nothing; download or save the folder again."
        elif len(there) > 1:
            yield f"{tensor} stands in {' and in '.join(there)}; download or save the folder again."


def _wrong_size(path: Path, index: Mapping[str, Any], files: Mapping[str, TensorSource]) -> Iterator[str]:
    metadata = index.get("metadata")
    said = metadata.get("total_size") if isinstance(metadata, dict) else None
    there = sum(source.data_size for source in files.values())
    is_ours_to_count = all(isinstance(source, TensorFile) for source in files.values())  # pickles share storages
    if is_ours_to_count and isinstance(said, int | float) and said != there:
        yield (
            f"{path} says that its files hold {said} bytes of tensors, and they hold {there}; download or save the "
            "folder again."
        )
