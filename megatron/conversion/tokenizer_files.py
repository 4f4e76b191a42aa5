"""The tokenizer of a run as the files that AutoTokenizer opens by itself, and the other way round."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError
from megatron.basics.file_bounds import SETTINGS_BYTES, refuse_large
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.sentencepiece_model import SentencePieceModel, as_fast_tokenizer
from megatron.conversion.tokenizer_proof import TokenizerProof, prove
from megatron.tokenization.hugging_face_tokenizer import CONVERTIBLE_FILES, names_of_special_tokens
from megatron.tokenization.tokenizer import Tokenizer, load_tokenizer

logger = logging.getLogger(__name__)

WHOLE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIAL = "special_tokens_map.json"
FOLDER = "tokenizer"  # of a run
# How conversations are written, which a folder says in one of these files or in CONFIG; we only carry it.
CHAT_TEMPLATE = "chat_template"
CHAT_TEMPLATES = (f"{CHAT_TEMPLATE}.jinja", "additional_chat_templates/*.jinja")
ROLES = {
    "bos_token": "begin",
    "eos_token": "end",
    "pad_token": "pad",
    "unk_token": "unknown",
    "mask_token": "mask",
    "cls_token": "classification",
    "sep_token": "separator",
}


def export_tokenizer(tokenizer: Tokenizer, folder: Path, described: DescribedModel) -> TokenizerProof:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json into `folder`, which exists.

    Chat templates go along as they are.

    Texts get what the rows of training had around them: the end token behind an encoder's inputs, the start token in
    front of a decoder's, or nothing. Names of special tokens in a text stand for the tokens, as everywhere in
    transformers; `split_special_tokens=True` encodes them as characters, as training did.

    Returns what the comparison with `tokenizer` on a sample has shown. Raises UserError, before anything is written,
    when its files are gone, when tokenizer.json cannot hold it, or when the sample gets other ids.
    """
    fast = _fast(tokenizer)
    roles = _roles(tokenizer, described)
    special = sorted({*tokenizer.special.ids(), *roles.values()})
    _add_special_tokens(tokenizer, fast, special)
    is_theirs = tokenizer.tokenizer_type == "HuggingFaceTokenizer"  # what its names do in a text is as it was
    proof = prove(tokenizer, fast, () if is_theirs else [tokenizer.piece(token) for token in special])
    if proof.ties:
        logger.warning(proof.sentence())

    content = json.loads(fast.to_str())
    content["post_processor"] = _post_processor(content["post_processor"], tokenizer, described)
    named: dict[str, Any] = {role: tokenizer.piece(token) for role, token in roles.items()}
    named["additional_special_tokens"] = [tokenizer.piece(token) for token in special if token not in roles.values()]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": described.max_positions,
        "model_input_names": ["input_ids", "attention_mask"],
        **named,
        **(_chat_template(Path(tokenizer.source)) if is_theirs else {}),
    }
    for name, value in ((WHOLE, content), (CONFIG, config), (SPECIAL, named)):
        with atomic_writer(folder / name, "w") as file:
            file.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    if is_theirs:
        _copy(Path(tokenizer.source), _chat_templates(Path(tokenizer.source)), folder)
    return proof


def ids_around(tokenizer: Tokenizer, described: DescribedModel) -> tuple[list[int], list[int]]:
    """Ids that rows have in front of a text and behind it."""
    if described.architecture == "encoder_decoder":
        return [], [tokenizer.eod_id] if described.ends_inputs else []
    if not described.begins_with_start_token:
        return [], []
    assert described.start_token is not None, "a start token begins every text"
    return [described.start_token], []


def holds_tokenizer(folder: Path) -> bool:
    """Whether a folder has a tokenizer that transformers opens."""
    return bool(_vocabularies(folder))


def import_tokenizer(folder: Path, run_folder: Path) -> tuple[str, Path]:
    """Copy a folder's tokenizer into RUN/tokenizer; the --tokenizer-type and --tokenizer-model that open it there.

    Raises UserError, before anything is written, where the folder has none or it cannot be read.
    """
    vocabularies = _vocabularies(folder)
    if not vocabularies:
        raise UserError(
            f"--load {folder} holds no tokenizer; give --tokenizer-type and --tokenizer-model of the one that the "
            "model was trained with."
        )
    tokenizer = load_tokenizer("HuggingFaceTokenizer", str(folder))
    settings = [name for name in (CONFIG, SPECIAL) if (folder / name).is_file()]
    templates = _chat_templates(folder)
    target = run_folder / FOLDER
    _copy(folder, (*vocabularies, *settings, *templates), target)
    if not names_of_special_tokens(target):  # the model's config.json says them, and does not come along
        with atomic_writer(target / SPECIAL, "w") as file:
            file.write(json.dumps(_named_roles(tokenizer), ensure_ascii=False, indent=2) + "\n")
    return "HuggingFaceTokenizer", target


def _named_roles(tokenizer: Tokenizer) -> dict[str, str]:
    """Begin and end of texts, as far as the tokenizer has them."""
    ids = {"bos_token": tokenizer.special.begin, "eos_token": tokenizer.special.end}
    return {role: tokenizer.piece(token) for role, token in ids.items() if token is not None}


def _vocabularies(folder: Path) -> list[str]:
    return [name for name in (WHOLE, *CONVERTIBLE_FILES) if (folder / name).is_file()]


def _chat_templates(folder: Path) -> list[str]:
    """Names of the files with chat templates. Raises UserError for one that is larger than any can be."""
    found = [path for pattern in CHAT_TEMPLATES for path in sorted(folder.glob(pattern)) if path.is_file()]
    for path in found:
        refuse_large(path, SETTINGS_BYTES)
    return [str(path.relative_to(folder)) for path in found]


def _chat_template(folder: Path) -> dict[str, Any]:
    """The entry of the settings that says the same."""
    path = folder / CONFIG
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return {CHAT_TEMPLATE: content[CHAT_TEMPLATE]} if content.get(CHAT_TEMPLATE) else {}


def _copy(folder: Path, names: Sequence[str], target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target / name)


def _fast(tokenizer: Tokenizer) -> FastTokenizer:
    """The tokenizer as the `tokenizers` library has it, from the files that it was made of."""
    source = Path(tokenizer.source)
    if tokenizer.tokenizer_type == "SentencePieceTokenizer":
        model = SentencePieceModel.parse(_read(source, tokenizer), tokenizer.source)
        return as_fast_tokenizer(model, [token for token in tokenizer.special.ids() if token < len(model.pieces)])
    if (source / WHOLE).exists():
        fast = FastTokenizer.from_buffer(_read(source / WHOLE, tokenizer))
    else:
        from transformers import AutoTokenizer  # seconds to import, and needed for folders of old alone

        fast = AutoTokenizer.from_pretrained(
            str(source), local_files_only=True, trust_remote_code=False
        ).backend_tokenizer
    fast.no_padding()
    fast.no_truncation()
    return fast


def _read(path: Path, tokenizer: Tokenizer) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"--tokenizer-model {path} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(content).hexdigest() != tokenizer.fingerprint:
        raise UserError(f"--tokenizer-model {path} has changed since it was opened; start again.")
    return content


def _roles(tokenizer: Tokenizer, described: DescribedModel) -> dict[str, int]:
    """Ids of the special tokens that transformers knows by their role."""
    ids = {role: getattr(tokenizer.special, field) for role, field in ROLES.items()}
    ids["pad_token"] = tokenizer.pad_id
    if described.start_token is not None:
        ids["bos_token"] = described.start_token
    return {role: token for role, token in ids.items() if token is not None}


def _add_special_tokens(tokenizer: Tokenizer, fast: FastTokenizer, special: Sequence[int]) -> None:
    """Names that stand for tokens in a text; the vocabulary gets those that are not in it.

    A sentinel has the space before its name, as in Tokenizer.encode_with_special.
    """
    inner = {*tokenizer.special.sentinels, *tokenizer.special.mode_tokens, *tokenizer.special.fim_tokens}
    known = {added.content for added in fast.get_added_tokens_decoder().values()}
    name_of = {token: tokenizer.piece(token) for token in special}
    fast.add_special_tokens(
        [
            AddedToken(name, special=True, normalized=False, lstrip=token in inner)
            for token, name in name_of.items()
            if name not in known
        ]
    )
    for token, name in name_of.items():
        there = fast.token_to_id(name)
        if there != token:
            raise UserError(
                f"--tokenizer-model {tokenizer.source}: {name} has the id {token}, and would have {there} in a "
                f"{WHOLE}, which leaves out no ids."
            )


def _post_processor(
    own: dict[str, Any] | None, tokenizer: Tokenizer, described: DescribedModel
) -> dict[str, Any] | None:
    """What is put around texts, behind the step of byte-level vocabularies that is about offsets alone."""
    steps = [own] if own and own["type"] == "ByteLevel" else []
    special = ids_around(tokenizer, described)
    if any(special):
        steps.append(_template(*special, tokenizer))
    if not steps:
        return None
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "processors": steps}


def _template(before: Sequence[int], behind: Sequence[int], tokenizer: Tokenizer) -> dict[str, Any]:
    """A template of the `tokenizers` library; of a pair, each text ends for itself."""
    name_of = {token: tokenizer.piece(token) for token in (*before, *behind)}

    def special(ids: Sequence[int]) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": name_of[token], "type_id": 0}} for token in ids]

    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [*special(before), first, *special(behind)],
        "pair": [*special(before), first, *special(behind), second, *special(behind)],
        "special_tokens": {name: {"id": name, "ids": [token], "tokens": [name]} for token, name in name_of.items()},
    }
