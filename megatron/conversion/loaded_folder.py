"""A Hugging Face folder as its users load it: transformers' classes, from the disk, in float32."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from megatron.basics.errors import RunFault
from megatron.conversion.hf_folder import shown
from megatron.conversion.verification_sample import Sample
from megatron.records.row import Row

SOME_TEXT = "a text"


@dataclass(frozen=True)
class LoadedFolder:
    """model: in float32, on the host. has_encoder: it takes inputs and targets apart."""

    model: nn.Module
    has_encoder: bool

    @classmethod
    def open(cls, folder: Path, *, has_encoder: bool, with_code: bool) -> LoadedFolder:
        """Load it by its Auto class. with_code: the class stands in the folder, and its file has been checked.

        Raises RunFault where transformers cannot, or gives a weight a value of its own.
        """
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM  # seconds to import

        auto = AutoModelForSeq2SeqLM if has_encoder else AutoModelForCausalLM
        with quiet_transformers():
            try:
                model, info = auto.from_pretrained(
                    str(folder),
                    dtype=torch.float32,
                    local_files_only=True,
                    trust_remote_code=with_code,
                    output_loading_info=True,
                )
            except Exception as error:  # each class has its own
                reason = " ".join(str(error).split())[:300]
                raise RunFault(f"{folder} cannot be loaded by transformers' {auto.__name__}: {reason}.") from error
        made_up = [*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])]
        if made_up:
            raise RunFault(f"{folder}: transformers finds no weights for {', '.join(shown(sorted(made_up)))}.")
        return cls(model.eval(), has_encoder)

    @torch.no_grad()
    def round_weights(self, rounded: Callable[[Tensor], Tensor]) -> None:
        """Give every weight the value that `rounded` makes of it."""
        for parameter in self.model.parameters():
            parameter.copy_(rounded(parameter))

    @torch.no_grad()
    def logits(self, sample: Sample, words: int, advance: Callable[[int], None]) -> Iterator[Tensor]:
        """Float32 [positions, words] of each row, one after the other."""
        for number, row in enumerate(sample.rows):
            outputs = self.model(**self._inputs(row), **_prefix(sample, number), use_cache=False)
            yield outputs.logits[0, :, :words].float()
            advance(1)

    def _inputs(self, row: Row) -> dict[str, Tensor]:
        tokens = torch.from_numpy(row.tokens).long()[None]
        if not self.has_encoder:
            return {"input_ids": tokens}
        assert row.encoder is not None
        return {"input_ids": torch.from_numpy(row.encoder.tokens).long()[None], "decoder_input_ids": tokens}


def _prefix(sample: Sample, number: int) -> dict[str, Tensor]:
    """The prefix of a row in the two ways in which a class of ours can be told of it, row about row."""
    if not sample.prefix:
        return {}
    if number % 2:
        return {"token_type_ids": (torch.arange(sample.row_length) < sample.prefix).long()[None]}
    return {"prefix_lengths": torch.tensor([sample.prefix])}


def tokenizer_ids(folder: Path, texts: list[str], *, with_code: bool) -> list[list[int]]:
    """Ids of texts without what stands around them; names of special tokens are characters, as in training.

    Raises RunFault where transformers cannot load the tokenizer.
    """
    with quiet_transformers():
        ids: list[list[int]] = _tokenizer(folder, with_code)(texts, add_special_tokens=False)["input_ids"]
    return ids


def ids_around_texts(folder: Path, *, with_code: bool) -> tuple[list[int], list[int]]:
    """Ids that the folder's tokenizer puts in front of a text and behind it. Raises RunFault as `tokenizer_ids`."""
    with quiet_transformers():
        tokenizer = _tokenizer(folder, with_code)
        bare, whole = (tokenizer(SOME_TEXT, add_special_tokens=added)["input_ids"] for added in (False, True))
    places = range(len(whole) - len(bare) + 1)
    first = next((place for place in places if whole[place : place + len(bare)] == bare), len(whole))
    return whole[:first], whole[first + len(bare) :]


def _tokenizer(folder: Path, with_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=with_code, split_special_tokens=True
        )
    except Exception as error:  # each class has its own
        reason = " ".join(str(error).split())[:300]
        raise RunFault(f"{folder}: its tokenizer cannot be loaded by AutoTokenizer: {reason}.") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without bars and remarks of transformers, whose state is as before when the block ends."""
    import transformers

    library: Any = transformers.utils.logging
    level, had_bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.CRITICAL)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if had_bars:
            library.enable_progress_bar()
