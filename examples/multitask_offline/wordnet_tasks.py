"""Write tasks made from WordNet as data sets for tools/prepare_tasks.py and tools/evaluate.py.

    python examples/multitask_offline/wordnet_tasks.py --wordnet /usr/share/wordnet --output-folder wordnet_data

writes, from the four data files of WordNet 3.0 (Debian's package wordnet-base, 6.5 MB):

    wordnet_data/data/TASK/train.jsonl, validation.jsonl     examples, one a line; held-out tasks have the latter alone
    wordnet_data/corpus.jsonl                                definitions and examples of training, {"text", "source"}
    wordnet_data/LICENSE                                     WordNet's, which has to stay with all of it

No word that is asked about in a validation split is asked about, or offered as an answer, in training. The same files,
flags and seed give the same bytes. Templates and mixture are in wordnet/.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from wordnet.data_files import FILES, read_wordnet
from wordnet.drawing import Row
from wordnet.held_out_rows import entailment_rows, opposite_rows, sense_rows
from wordnet.sides import TRAIN, VALIDATION, Side, two_sides
from wordnet.trained_rows import blank_rows, category_rows, definition_rows, kind_rows, truth_rows

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError, exit_on_user_error

FEWEST_EXAMPLES = 4  # one with each place of the answer
Maker = Callable[[Side, int, Random], list[Row]]
TRAINED: dict[str, Maker] = {
    "wordnet_definition": definition_rows,
    "wordnet_truth": truth_rows,
    "wordnet_kind": kind_rows,
    "wordnet_blank": blank_rows,
    "wordnet_category": category_rows,
}
HELD_OUT: dict[str, Maker] = {
    "wordnet_sense": sense_rows,
    "wordnet_opposite": opposite_rows,
    "wordnet_entailment": entailment_rows,
}


def made(sides: tuple[Side, Side], limits: dict[str, int], seed: int) -> Iterator[tuple[str, str, list[Row]]]:
    """(task, split, examples) of every task; raises UserError for a split without examples."""
    for side in sides:
        for task, maker in {**TRAINED, **({} if side.name == TRAIN else HELD_OUT)}.items():
            rows = maker(side, limits[side.name], Random(f"{seed} {side.name} {task}"))
            if not rows:
                raise UserError(
                    f"--wordnet has too few words for the split {side.name} of {task}; give all of WordNet 3.0, more "
                    f"than {limits[side.name]} examples, or another --evaluation-percent."
                )
            yield task, side.name, rows


def documents(side: Side) -> Iterator[Row]:
    """Each synset in running text: its words, what they mean, and how they are used."""
    for entry in side.entries.values():
        meaning = f"{', '.join(entry.words)}: {entry.synset.definition}"
        yield {"text": "\n".join((meaning, *entry.examples)), "source": FILES[entry.synset.part]}


def main() -> None:
    """Run the command. Raises UserError, before anything is written for faults of the data."""
    arguments = _arguments()
    folder, seed = Path(arguments.output_folder), arguments.seed
    wordnet = read_wordnet(arguments.wordnet)
    sides = two_sides(wordnet, arguments.evaluation_percent, seed)
    limits = {TRAIN: arguments.max_examples, VALIDATION: arguments.max_evaluation_examples}
    files = {folder / "data" / task / f"{split}.jsonl": rows for task, split, rows in made(sides, limits, seed)}
    files[folder / "corpus.jsonl"] = [*documents(sides[0])]
    with contextlib.ExitStack() as stack:  # all files appear behind the last line of the last one
        for path, rows in files.items():
            file = stack.enter_context(atomic_writer(path, "w"))
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        stack.enter_context(atomic_writer(folder / "LICENSE", "w")).write(wordnet.notice + "\n")
    for path, rows in files.items():
        print(f"{path}: {len(rows):,}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True, help="Folder with data.noun, .verb, .adj and .adv.")
    parser.add_argument("--output-folder", required=True, help="Where data/, corpus.jsonl and LICENSE go.")
    parser.add_argument(
        "--max-examples", type=int, default=20_000, help="Of a task, to train on. Default: %(default)s."
    )
    parser.add_argument(
        "--max-evaluation-examples", type=int, default=1_000, help="Of a task, to evaluate on. Default: %(default)s."
    )
    parser.add_argument(
        "--evaluation-percent", type=int, default=15, help="Of the lemmas, to evaluate on. Default: %(default)s."
    )
    parser.add_argument("--seed", type=int, default=1234, help="Parts lemmas and draws examples. Default: %(default)s.")
    arguments = parser.parse_args()
    bounds = (
        ("--max-examples", arguments.max_examples, FEWEST_EXAMPLES, None),
        ("--max-evaluation-examples", arguments.max_evaluation_examples, FEWEST_EXAMPLES, None),
        ("--evaluation-percent", arguments.evaluation_percent, 1, 50),
    )
    faults = [
        f"{flag} {value} is not within {least} to {most}." if most else f"{flag} {value} is less than {least}."
        for flag, value, least, most in bounds
        if value < least or (most is not None and value > most)
    ]
    if faults:
        raise UserError(*faults)
    return arguments


if __name__ == "__main__":
    exit_on_user_error(main)
