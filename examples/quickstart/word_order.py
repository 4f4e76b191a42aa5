"""Make a multiple-choice task of held-out text: which of four orders of the same words goes on with a sentence?

    python examples/quickstart/word_order.py --input corpus/valid.jsonl --output-folder tasks/word_order

writes tasks/word_order/validation.jsonl, one example a line: {"context": ..., "choices": [...], "answer": ...}. The
context is a piece of a paragraph, one choice the words that follow it, and the others are the same words shuffled. So
choices differ neither in length nor in how frequent their words are, and guessing finds one in four. The shuffles and
the places of the choices are functions of the text alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError, exit_on_user_error

CONTEXT_WORDS = 16
CHOICE_WORDS = 8
CHOICES = 4


def pieces(document: str) -> Iterator[list[str]]:
    """Runs of words of prose within a paragraph, as many as a context and a choice need, side by side."""
    length = CONTEXT_WORDS + CHOICE_WORDS
    for paragraph in re.split(r"\n\s*\n", document):
        words = paragraph.split()
        for start in range(0, len(words) - length + 1, length):
            piece = words[start : start + length]
            if sum(word.strip(".,:;()'\"").isalpha() for word in piece) >= 0.8 * length:
                yield piece


def example(piece: list[str]) -> dict[str, object] | None:
    """The example of a piece; None where its last words have too few orders, as when all are equal."""
    chance = random.Random(hashlib.sha256(" ".join(piece).encode()).digest())
    context, ending = piece[:CONTEXT_WORDS], piece[CONTEXT_WORDS:]
    choices = [" ".join(ending)]
    for _ in range(100):
        shuffled = " ".join(chance.sample(ending, len(ending)))
        if shuffled not in choices:
            choices.append(shuffled)
        if len(choices) == CHOICES:
            order = chance.sample(range(CHOICES), CHOICES)
            return {
                "context": " ".join(context),
                "choices": [choices[place] for place in order],
                "answer": order.index(0),
            }
    return None


def main() -> None:
    """Run the command. Raises UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help='JSONL with {"text": ...} a line.')
    parser.add_argument("--output-folder", required=True, help="Where validation.jsonl goes.")
    arguments = parser.parse_args()
    try:
        with open(arguments.input, encoding="utf-8") as file:
            documents = [json.loads(line)["text"] for line in file]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--input {arguments.input} is not JSONL with a text in each line ({error}).") from error
    made = [found for document in documents for piece in pieces(document) if (found := example(piece)) is not None]
    if not made:
        raise UserError(f"--input {arguments.input} has no paragraph of {CONTEXT_WORDS + CHOICE_WORDS} words of prose.")
    path = Path(arguments.output_folder) / "validation.jsonl"
    with atomic_writer(path, "w") as file:
        file.writelines(json.dumps(found, ensure_ascii=False) + "\n" for found in made)
    print(f"{path}: {len(made):,} examples of {CHOICES} choices")


if __name__ == "__main__":
    exit_on_user_error(main)
