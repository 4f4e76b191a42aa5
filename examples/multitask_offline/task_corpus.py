"""Write the texts of a mixture's training examples as a corpus, to learn a vocabulary from and to pretrain on.

    python examples/multitask_offline/task_corpus.py --mixture examples/multitask_offline/mixture.yaml \
        --data-dir olmo_data --output corpus.jsonl

Each example becomes a document, {"text": ..., "source": ...}, of its texts, a line each: what belongs together stays
together, as the two solutions of PIQA that differ by a word. Single words count in lists of choices alone, because
those of columns are labels mostly. The same document is written once. A text of eight words or more that an example of
a validation split or a held-out task of the mixture says as well, in any data set, is left out: some 720 of BoolQ's
passages, for example. Case, spaces and punctuation around words do not count. An example without a text of that length
becomes no document.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError, exit_on_user_error
from megatron.finetuning.copies import normalised, texts_in_order, texts_of
from megatron.prompting.data_sets import DataMissing, DataSets
from megatron.prompting.mixture import MixedDataSet, Mixture, read_mixture

FEWEST_WORDS = 8


def evaluated_texts(shelf: DataSets, mixture: Mixture) -> set[str]:
    """What examples of evaluation say, as `normalised` has it. What is not at hand is named on stderr."""
    splits = [(entry.path, entry.configuration, "validation") for entry in mixture.data_sets]
    splits += [(task.path, task.configuration, task.split) for task in mixture.held_out]
    texts: set[str] = set()
    for split in splits:
        try:
            texts.update(*map(texts_of, shelf.find(*split).rows()))
        except DataMissing as missing:
            print(f"not looked for in training: {missing}", file=sys.stderr)
    return texts


def documents(shelf: DataSets, entry: MixedDataSet, evaluated: set[str], written: set[str]) -> Iterator[str]:
    """A document of each training example of a data set, unless it is among those written, to which it is added."""
    for example in shelf.find(entry.path, entry.configuration, "train").rows():
        texts = [text.strip() for text in texts_in_order(example)]
        lines = [text for text in texts if not (is_running_text(text) and normalised(text) in evaluated)]
        known_as = normalised(" ".join(lines))
        if any(map(is_running_text, lines)) and known_as not in written:
            written.add(known_as)
            yield "\n".join(lines)


def is_running_text(text: str) -> bool:
    """Whether a text is long enough to be recognised, and to be worth a document."""
    return len(text.split()) >= FEWEST_WORDS


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixture", required=True, help="Mixture file.")
    parser.add_argument("--data-dir", type=Path, required=True, help="Folder with its data sets.")
    parser.add_argument("--output", required=True, help="File of JSON lines to write.")
    arguments = parser.parse_args()
    shelf, mixture, count = DataSets(arguments.data_dir), read_mixture(arguments.mixture), 0
    evaluated, written = evaluated_texts(shelf, mixture), set[str]()
    with atomic_writer(arguments.output, "w") as file:
        for entry in mixture.data_sets:
            for text in documents(shelf, entry, evaluated, written):
                file.write(json.dumps({"text": text, "source": entry.data_set}) + "\n")
                count += 1
        if not count:
            raise UserError(f"--data-dir {arguments.data_dir} has no text of {arguments.mixture}; check both.")
    print(f"{arguments.output}: {count:,} documents")


if __name__ == "__main__":
    exit_on_user_error(main)
