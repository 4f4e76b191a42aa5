"""Prepares one split: renders, encodes, and writes its files, all or none of them.

PREFIX_inputs and PREFIX_targets are token files, document i of both is prompt i (training and validation). PREFIX.jsonl
holds prompts for evaluation, one a line: data_set, template, index, inputs, targets, choices. PREFIX.fingerprints holds
what the search for copies compares, uint64 little endian (validation and held-out tasks have both).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError
from megatron.basics.progress import Progress
from megatron.data.pair_paths import PAIR_SUFFIXES
from megatron.data.token_file_writer import TokenFileWriter, token_dtype, token_file_writer
from megatron.finetuning.copies import FINGERPRINTS, KnownTexts
from megatron.finetuning.pair_maker import MadeExample, PairMaker
from megatron.finetuning.template_shares import number_of_prompts, shared_out
from megatron.finetuning.unit_record import UnitRecord, digest_of, new_record, record_path
from megatron.finetuning.units import HELD_OUT, TRAIN, VALIDATION, Unit
from megatron.prompting.rendering import ExampleToRender, render_and_use
from megatron.prompting.template import Prompted
from megatron.tokenization.tokenizer import Tokenizer

VERSION = 3  # of what is made of the same input; a later one prepares everything again
EXAMPLES_AT_ONCE, BYTES_AT_ONCE = 1024, 2**26  # to write: prompts of a long document may be megabytes each
# So many examples that say the same are more than a question has answers. They say nothing of their own, e.g. "Is this
# number even?", with the number in a column of its own.
TOO_MANY_ALIKE = 8
PAIRS = tuple(f"{suffix}{kind}" for suffix in PAIR_SUFFIXES for kind in (".bin", ".idx", ".json"))
EVALUATION = (".jsonl", ".fingerprints")
ENDINGS = {TRAIN: PAIRS, VALIDATION: (*PAIRS, *EVALUATION), HELD_OUT: EVALUATION}  # of a unit's files


@dataclass(frozen=True)
class Settings:
    """What holds for all splits. folder: of the output."""

    folder: Path
    tokenizer: Tokenizer
    seed: int
    max_input_length: int
    max_target_length: int
    strict: bool
    workers: int


def made_from(unit: Unit, settings: Settings, known: KnownTexts | None) -> str:
    """Changes when anything does that the unit's files depend on."""
    return digest_of(
        VERSION,
        [unit.role, unit.name, unit.data_set, unit.split, unit.cap],
        [dataclasses.asdict(template) for template in unit.templates],
        unit.source.state(),
        [settings.tokenizer.fingerprint, settings.seed, settings.max_input_length, settings.max_target_length],
        None if known is None else [known.digest(), known.names],
    )


def prompts_of(unit: Unit) -> int:
    """How many prompts are to be rendered."""
    return number_of_prompts(unit.examples, len(unit.templates), unit.cap)


def prepare_unit(unit: Unit, settings: Settings, known: KnownTexts | None, bar: Progress) -> UnitRecord:
    """Write the files of a unit and give back its record. known: texts that are left out, in training.

    The bytes depend on what `made_from` counts, not on the number of workers. Raises UserError for what rendering
    refuses, a full disk, and with `strict` for the first prompt at fault.
    """
    prefix = unit.prefix(settings.folder)
    paths = [prefix.with_name(prefix.name + ending) for ending in ENDINGS[unit.role]]
    for path in (record_path(prefix), *paths):  # new inputs beside old targets would be read as pairs
        path.unlink(missing_ok=True)
    record = new_record(unit, made_from(unit, settings, known))
    try:
        _write(unit, settings, known, record, bar)
    except _TooAlike as found:
        bar.advance(-prompts_of(unit))
        record = new_record(unit, record.made_from)
        record.alike = sum(found.examples.values())
        _write(unit, settings, known, record, bar, frozenset(found.examples))
    record.files = {path.name: path.stat().st_size for path in paths}
    record.write(prefix)
    return record


class _TooAlike(Exception):
    """Many examples say what one of evaluation says: no copies of it, but what they have in common with it.

    examples: how many, by their fingerprint.
    """

    def __init__(self, examples: dict[bytes, int]) -> None:
        self.examples = examples


def _write(
    unit: Unit,
    settings: Settings,
    known: KnownTexts | None,
    record: UnitRecord,
    bar: Progress,
    alike: frozenset[bytes] = frozenset(),
) -> None:
    """Write the files and fill the record. alike: fingerprints that say nothing of the examples that have them.

    Raises _TooAlike, with nothing written, where there are others. A copy of a whole example is thus no fault before
    the last example: it may be that it is none.
    """
    # Of what is in evaluation alone: memory does not grow with the data set.
    numbers: Counter[bytes] = Counter()
    with _UnitWriter.open(unit, settings) as writer, closing(_made(unit, settings, known, alike)) as made:
        for examples in _groups(made):
            for example in examples:
                record.add(example, unit.templates)
                if example.remarks or (example.copies and not example.copied):
                    require_no_fault(record, settings)
            numbers.update(example.copied for example in examples if example.copied)
            writer.write(examples)
            bar.advance(sum(len(example.templates) for example in examples), unit.title)
        found = {fingerprint: number for fingerprint, number in numbers.items() if number >= TOO_MANY_ALIKE}
        if found:
            raise _TooAlike(found)
        require_no_fault(record, settings)
        writer.seal(settings.tokenizer)


def _groups(made: Iterator[MadeExample]) -> Iterator[list[MadeExample]]:
    """Some at a time."""
    group: list[MadeExample] = []
    size = 0
    for example in made:
        group.append(example)
        size += len(example.inputs) + len(example.targets) + len(example.lines)
        if len(group) >= EXAMPLES_AT_ONCE or size >= BYTES_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def require_no_fault(record: UnitRecord, settings: Settings) -> None:
    """Raise UserError for the first prompt at fault, where --strict asks for it."""
    if settings.strict and record.first_faults():
        raise UserError(f"{record.first_faults()[0]} Mend it, or go on by leaving out --strict.")


def check_first_example(unit: Unit, settings: Settings) -> Iterator[str]:
    """Why the first example of a unit cannot be rendered, a sentence for each template; before hours of work."""
    first = unit.source.first()
    if first is None or _fault_of(unit, range(len(unit.templates)), first, settings) is None:
        return
    for number in range(len(unit.templates)):
        fault = _fault_of(unit, [number], first, settings)
        if fault is not None:
            yield fault


def read_fingerprints(unit: Unit, folder: Path) -> NDArray[np.uint64]:
    """What a prepared unit of evaluation says, uint64 [n]."""
    prefix = unit.prefix(folder)
    return np.fromfile(prefix.with_name(f"{prefix.name}.fingerprints"), FINGERPRINTS)


def _fault_of(unit: Unit, templates: Any, example: Any, settings: Settings) -> str | None:
    work = [ExampleToRender(0, example, templates)]
    try:
        with closing(render_and_use(unit.templates, work, _nothing, seed=settings.seed)) as answers:
            next(answers)
    except UserError as error:
        return str(error)
    return None


def _nothing(example: ExampleToRender, row: tuple[Prompted | None, ...]) -> None:
    """The trial keeps nothing."""


def _made(unit: Unit, settings: Settings, known: KnownTexts | None, alike: frozenset[bytes]) -> Any:
    maker = PairMaker(
        unit.templates,
        None if unit.role == HELD_OUT else settings.tokenizer,
        known,
        alike,
        unit.role != TRAIN,
        settings.max_input_length,
        settings.max_target_length,
    )
    examples = shared_out(
        unit.source.rows(), unit.examples, len(unit.templates), unit.cap, seed=settings.seed, data_set=unit.data_set
    )
    return render_and_use(unit.templates, examples, maker, seed=settings.seed, workers=settings.workers)


class _UnitWriter:
    """The open files of a unit."""

    def __init__(self, pairs: list[TokenFileWriter], lines: IO[bytes] | None, fingerprints: IO[bytes] | None) -> None:
        self._pairs, self._lines, self._fingerprints = pairs, lines, fingerprints

    @classmethod
    @contextlib.contextmanager
    def open(cls, unit: Unit, settings: Settings) -> Iterator[_UnitWriter]:
        """Files that appear when the block ends well."""
        prefix = unit.prefix(settings.folder)
        dtype = token_dtype(settings.tokenizer.vocabulary_size)
        with contextlib.ExitStack() as stack:
            pairs = []
            if unit.role != HELD_OUT:
                pairs = [stack.enter_context(token_file_writer(f"{prefix}{suffix}", dtype)) for suffix in PAIR_SUFFIXES]
            files = [
                None if unit.role == TRAIN else stack.enter_context(atomic_writer(f"{prefix}{ending}"))
                for ending in EVALUATION
            ]
            yield cls(pairs, *files)

    def write(self, examples: list[MadeExample]) -> None:
        """Add examples in their order."""
        for writer, ids, lengths in zip(
            self._pairs, ("inputs", "targets"), ("input_lengths", "target_lengths"), strict=False
        ):
            tokens = np.frombuffer(b"".join(getattr(example, ids) for example in examples), writer.dtype)
            counts = [length for example in examples for length in getattr(example, lengths)]
            writer.append(tokens, np.array(counts, np.int32))
        if self._lines is not None and self._fingerprints is not None:
            self._lines.writelines(example.lines for example in examples)
            self._fingerprints.writelines(example.fingerprints for example in examples)

    def seal(self, tokenizer: Tokenizer) -> None:
        """End the token files."""
        for writer in self._pairs:
            writer.seal(tokenizer, None)
