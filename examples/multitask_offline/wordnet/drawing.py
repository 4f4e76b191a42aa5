"""Draws examples so that nothing but the meaning of words tells the answer.

Every label is as frequent as every other, and wrong choices look like the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, TypeVar

from wordnet.data_files import WordNet, lemma_of

Row = dict[str, Any]
Item = TypeVar("Item")
NUM_CHOICES = 4
MOST_DRAWS = 100  # for wrong choices, before the example is given up


class OtherWords:
    """Words to stand beside a right one: of the same part of speech and looks, and no synonym of any meaning of it.

    answers: (part of speech, word) of every question that there may be. A word is drawn as often as it stands there, so
    that one with many meanings, or one that is used in many sentences, is wrong as often as other words are.
    """

    def __init__(self, answers: Iterable[tuple[str, str]], wordnet: WordNet, chance: Random) -> None:
        self._wordnet, self._chance = wordnet, chance
        self._pools: dict[tuple[str, bool, bool], list[str]] = {}
        for part, word in answers:
            self._pools.setdefault((part, *looks(word)), []).append(word)

    def draw(self, part: str, word: str) -> list[str] | None:
        """Wrong choices, all different; None where there are not enough."""
        pool = self._pools[part, *looks(word)]
        taken = {lemma_of(other) for synset in self._wordnet.senses(part, word) for other in synset.words}
        found: list[str] = []
        for _ in range(MOST_DRAWS):
            other = self._chance.choice(pool)
            if lemma_of(other) not in taken:
                taken.add(lemma_of(other))
                found.append(other)
                if len(found) == NUM_CHOICES - 1:
                    return found
        return None


def looks(word: str) -> tuple[bool, bool]:
    """(several words, with capitals): what would tell a wrong choice from the right one without its meaning."""
    return " " in word, word != word.lower()


def balanced(
    sources: Iterable[Item], limit: int, num_labels: int, make: Callable[[Item, int], Row | None]
) -> list[Row]:
    """At most `limit` rows with all labels in turn; make(source, label) gives None where there is no such row."""
    rows: list[Row] = []
    for source in sources:
        if len(rows) >= limit - limit % num_labels:
            break
        row = make(source, len(rows) % num_labels)
        if row is not None:
            rows.append(row)
    return rows[: len(rows) - len(rows) % num_labels]


def alternating(by_label: Sequence[list[Row]], limit: int, chance: Random) -> list[Row]:
    """At most `limit` of the rows, with all labels in turn."""
    mixed = [shuffled(rows, chance)[: limit // len(by_label)] for rows in by_label]
    return [row for turn in zip(*mixed, strict=False) for row in turn]


def shuffled(items: Iterable[Item], chance: Random) -> list[Item]:
    """A copy in another order."""
    copy = [*items]
    chance.shuffle(copy)
    return copy


def put_among(wrong: list[str], right: str, place: int) -> list[str]:
    """All choices, the right one at its place."""
    return [*wrong[:place], right, *wrong[place:]]
