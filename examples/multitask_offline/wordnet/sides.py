"""Parts WordNet in two, so that no word, definition or example that is evaluated on is trained on.

The side of a word is a function of its lemma: of a hash of the lemma and the seed. Two exceptions serve held-out tasks,
which ask about two words: words that are opposites of one another go together, by the hash of the first of them in the
alphabet, and all words of the few links between verbs that entail one another are evaluated on.

A synset is of evaluation if any of its words is; there its words of training are not asked about.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from wordnet.data_files import CAUSES, ENTAILS, OPPOSITE, Key, Synset, WordNet, lemma_of

TRAIN, VALIDATION = "train", "validation"


class Entry(NamedTuple):
    """A synset with those of its words and examples that its side may use: a word or more."""

    synset: Synset
    words: tuple[str, ...]
    examples: tuple[str, ...]


class Side(NamedTuple):
    """What one side is made from, in the order of the files. name: TRAIN or VALIDATION, the split that it makes."""

    name: str
    wordnet: WordNet
    entries: dict[Key, Entry]

    def of(self, part: str) -> list[Entry]:
        """The entries of a part of speech."""
        return [entry for key, entry in self.entries.items() if key[0] == part]


def two_sides(wordnet: WordNet, percent: int, seed: int) -> tuple[Side, Side]:
    """(training, evaluation). percent: of the lemmas, about, that are evaluated on."""
    lemmas = evaluation_lemmas(wordnet, percent, seed)
    evaluation: dict[Key, Entry] = {}
    others = []
    for synset in wordnet.synsets.values():
        words = tuple(word for word in synset.words if lemma_of(word) in lemmas)
        if words:
            evaluation[synset.key] = Entry(synset, words, synset.examples)
        else:
            others.append(synset)
    known = {plain(text) for entry in evaluation.values() for text in (entry.synset.definition, *entry.examples)}
    training = {
        synset.key: Entry(synset, synset.words, tuple(text for text in synset.examples if plain(text) not in known))
        for synset in others
        if plain(synset.definition) not in known
    }
    return Side(TRAIN, wordnet, training), Side(VALIDATION, wordnet, evaluation)


def evaluation_lemmas(wordnet: WordNet, percent: int, seed: int) -> frozenset[str]:
    """The lemmas that are evaluated on."""
    leaders = _Leaders()
    reserved: set[str] = set()
    for synset in wordnet.synsets.values():
        leaders.add(*map(lemma_of, synset.words))
        for word, other in opposites_of(wordnet, synset):
            leaders.join(lemma_of(word), lemma_of(other))
        for target in wordnet.linked(synset, ENTAILS, CAUSES):
            reserved.update((lemma_of(synset.words[0]), lemma_of(target.words[0])))
    held = {leaders.of(lemma) for lemma in reserved}
    return frozenset(
        lemma
        for lemma in leaders.lemmas()
        for leader in (leaders.of(lemma),)
        if leader in held or _percentile(leader, seed) < percent
    )


def opposites_of(wordnet: WordNet, synset: Synset) -> Iterator[tuple[str, str]]:
    """(word, its opposite) for words of a synset."""
    for link in synset.links:
        if link.symbol == OPPOSITE and link.word and link.target_word:
            yield synset.words[link.word - 1], wordnet.synsets[link.target].words[link.target_word - 1]


def plain(text: str) -> str:
    """A text without capitals and punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _percentile(lemma: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {lemma}".encode(), digest_size=8).digest(), "big") % 100


class _Leaders:
    """Groups of lemmas, each known by its first one in the alphabet."""

    def __init__(self) -> None:
        self._next: dict[str, str] = {}

    def add(self, *lemmas: str) -> None:
        """Lemmas that may be groups of their own."""
        for lemma in lemmas:
            self._next.setdefault(lemma, lemma)

    def join(self, lemma: str, other: str) -> None:
        """Two lemmas, and with them their groups, go together."""
        self.add(lemma, other)
        first, second = sorted((self.of(lemma), self.of(other)))
        self._next[second] = first

    def of(self, lemma: str) -> str:
        """The first of its group."""
        while (above := self._next[lemma]) != lemma:
            self._next[lemma] = self._next[above]  # half the way for those who ask again
            lemma = above
        return lemma

    def lemmas(self) -> Iterator[str]:
        """All that were added."""
        return iter(self._next)
