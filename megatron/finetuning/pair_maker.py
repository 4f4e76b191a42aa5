"""What a worker makes of an example and its prompts: tokens, lines for evaluation, fingerprints, and why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from megatron.data.pair_paths import END
from megatron.data.token_file_writer import token_dtype
from megatron.finetuning.copies import KnownTexts, fingerprint_of_example, fingerprint_of_prompt
from megatron.prompting.rendering import ExampleToRender
from megatron.prompting.template import Prompted, Template, fault_of_choices
from megatron.tokenization.tokenizer import Tokenizer

NOT_UNICODE = "text that is not Unicode"
WHOLE = -1  # in the place of a template: the example, whatever asks about it


class Fate(IntEnum):
    """What became of a prompt."""

    KEPT = 0
    EMPTY = 1  # the template does not apply to the example
    COPIED = 2  # it is in evaluation, too
    TOO_LONG = 3  # its target is
    UNREADABLE = 4  # not Unicode text, or without a token


class MadeExample(NamedTuple):
    """An example, by its number, through its templates; a plain tuple, because that is sent between processes quickly.

    fates: one byte for each template. inputs, targets: ids of the prompts that are kept, one behind the other, in the
    token files' dtype. cut_inputs: how many of them lost tokens. remarks: (template's number, fault, whether the prompt
    is kept) of what a person should know. copies: (template's number, or -1 for the example as a whole, where the copy
    is); copied: in the latter case the example's fingerprint.
    """

    number: int
    templates: Sequence[int]
    fates: bytes
    inputs: bytes = b""
    targets: bytes = b""
    input_lengths: tuple[int, ...] = ()
    target_lengths: tuple[int, ...] = ()
    cut_inputs: int = 0
    lines: bytes = b""
    fingerprints: bytes = b""
    remarks: tuple[tuple[int, str, bool], ...] = ()
    copies: tuple[tuple[int, str], ...] = ()
    copied: bytes = b""


@dataclass(frozen=True)
class PairMaker:
    """Turns the prompts of an example into what is written of it.

    tokenizer: None where no pairs are wanted. known: texts that may not be trained on. alike: fingerprints of examples
    that are compared by their prompts alone, not as wholes. writes_evaluation: lines of JSON and fingerprints are
    wanted. max_input_length: tokens of inputs, the last of which are kept, because the question and the cue to answer
    stand at the end of most prompts. max_target_length: tokens of a target and its end.
    """

    templates: Sequence[Template]
    tokenizer: Tokenizer | None
    known: KnownTexts | None
    alike: frozenset[bytes]
    writes_evaluation: bool
    max_input_length: int
    max_target_length: int

    def __call__(self, example: ExampleToRender, row: tuple[Prompted | None, ...]) -> MadeExample:
        """What is written of the example."""
        fates = [Fate.EMPTY if prompted is None else Fate.KEPT for prompted in row]
        fingerprints = self._fingerprints(example, row)
        copies: list[tuple[int, str]] = []
        if self.known is not None:
            copies = self._mark_copies(example, fates, fingerprints)
        lines = self._lines(example, row, fates) if self.writes_evaluation else b""
        made = MadeExample(
            example.index,
            example.templates,
            bytes(fates),
            lines=lines,
            remarks=tuple(
                (number, NOT_UNICODE, False)
                for number, fate in zip(example.templates, fates, strict=True)
                if fate == Fate.UNREADABLE
            ),
            fingerprints=b"".join(filter(None, fingerprints)) if self.writes_evaluation else b"",
            copies=tuple(copies),
            copied=fingerprints[0] or b"" if copies and copies[0][0] == WHOLE else b"",
        )
        if self.tokenizer is not None:
            made = self._with_tokens(made, row, fates)
        return made._replace(remarks=(*made.remarks, *_unrankable(made, row)))

    def _fingerprints(self, example: ExampleToRender, row: tuple[Prompted | None, ...]) -> list[bytes | None]:
        """Of the example, then of its prompts."""
        if self.known is None and not self.writes_evaluation:
            return []
        return [
            fingerprint_of_example(example.example),
            *(None if prompted is None else fingerprint_of_prompt(prompted) for prompted in row),
        ]

    def _mark_copies(
        self, example: ExampleToRender, fates: list[Fate], fingerprints: list[bytes | None]
    ) -> list[tuple[int, str]]:
        assert self.known is not None
        owners = iter(self.known.owners(b"".join(filter(None, fingerprints))))
        whole, *prompts = [None if one is None else next(owners) for one in fingerprints]
        if whole is not None and fingerprints[0] not in self.alike:
            fates[:] = [fate if fate == Fate.EMPTY else Fate.COPIED for fate in fates]
            return [(WHOLE, whole)]
        copies = []
        for place, (number, owner) in enumerate(zip(example.templates, prompts, strict=True)):
            if owner is not None:
                fates[place] = Fate.COPIED
                copies.append((number, owner))
        return copies

    def _with_tokens(self, made: MadeExample, row: tuple[Prompted | None, ...], fates: list[Fate]) -> MadeExample:
        """The same with the tokens of what is kept, and what is not because of its tokens."""
        assert self.tokenizer is not None
        dtype = token_dtype(self.tokenizer.vocabulary_size)
        remarks = [*made.remarks]
        places = [place for place, fate in enumerate(fates) if fate == Fate.KEPT]
        encoded = dict(zip(places, self._encoded([row[place] for place in places]), strict=True))
        for place, pair in encoded.items():
            number = made.templates[place]
            if pair is None or not all(map(len, pair)):
                fates[place] = Fate.UNREADABLE
                fault = NOT_UNICODE if pair is None else "inputs or a target without a token"
                remarks.append((number, fault, False))
            elif len(pair[1]) + END > self.max_target_length:
                fates[place] = Fate.TOO_LONG
                remarks.append((number, f"a target of {len(pair[1]) + END:,} tokens with its end token", False))
        kept = [pair for place, pair in encoded.items() if fates[place] == Fate.KEPT and pair is not None]
        inputs, targets = [pair[0][-self.max_input_length :] for pair in kept], [pair[1] for pair in kept]
        return made._replace(
            fates=bytes(fates),
            inputs=b"".join(ids.astype(dtype).tobytes() for ids in inputs),
            targets=b"".join(ids.astype(dtype).tobytes() for ids in targets),
            input_lengths=tuple(map(len, inputs)),
            target_lengths=tuple(map(len, targets)),
            cut_inputs=sum(len(pair[0]) > self.max_input_length for pair in kept),
            remarks=tuple(remarks),
        )

    def _encoded(self, prompts: Sequence[Any]) -> list[tuple[NDArray[np.int32], NDArray[np.int32]] | None]:
        """(inputs, target) of each prompt; None for one that is not Unicode text, e.g. half of a pair of surrogates."""
        assert self.tokenizer is not None
        if not prompts:
            return []
        texts = [text for prompted in prompts for text in (prompted.inputs, prompted.targets[0])]
        try:
            ids = self.tokenizer.encode_batch(texts)
        except UnicodeEncodeError:
            return [None] if len(prompts) == 1 else [pair for one in prompts for pair in self._encoded([one])]
        return list(zip(ids[::2], ids[1::2], strict=True))

    def _lines(self, example: ExampleToRender, row: tuple[Prompted | None, ...], fates: list[Fate]) -> bytes:
        """A line of JSON for each prompt; marks those of which there can be none."""
        lines = []
        for place, (number, prompted) in enumerate(zip(example.templates, row, strict=True)):
            line = None if prompted is None else self._line(example.index, self.templates[number], prompted)
            if line is not None:
                lines.append(line)
            elif prompted is not None:
                fates[place] = Fate.UNREADABLE
        return b"".join(lines)

    def _line(self, index: int, template: Template, prompted: Prompted) -> bytes | None:
        content = {
            "data_set": template.data_set,
            "template": template.name,
            "index": index,
            "inputs": prompted.inputs,
            "targets": prompted.targets,
            "choices": prompted.choices,
        }
        try:
            return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
        except orjson.JSONEncodeError:  # lone surrogates
            return None


def _unrankable(made: MadeExample, row: tuple[Prompted | None, ...]) -> Iterator[tuple[int, str, bool]]:
    """A remark for each prompt that is kept, has choices, and could not be scored by them."""
    for number, fate, prompted in zip(made.templates, made.fates, row, strict=True):
        if prompted is not None and fate == Fate.KEPT and prompted.choices is not None:
            fault = fault_of_choices(prompted)
            if fault is not None:
                yield number, fault, True
