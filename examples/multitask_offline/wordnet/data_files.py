"""Reads WordNet's files data.noun, data.verb, data.adj and data.adv, in the form of its manual page wndb(5).

    00002325 05 n 02 cow 0 moo-cow 0 001 @ 00002100 n 0000 | female of domestic cattle; "the cow gives milk"

is a synset, a set of words with one meaning: its place in the file, the number of a lexicographer's file, part of
speech, words and links with their counts, and behind the bar a definition with quoted examples. The lines before the
first one begin with two blanks and are the licence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from megatron.basics.errors import UserError

FILES = {"noun": "data.noun", "verb": "data.verb", "adjective": "data.adj", "adverb": "data.adv"}
LETTERS = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}
OPPOSITE, KIND_OF, INSTANCE_OF, ENTAILS, CAUSES = "!", "@", "@i", "*", ">"
Key = tuple[str, int]  # part of speech and place in its file


class Link(NamedTuple):
    """A pointer to another synset; word and target_word count from 1 and are 0 where it holds for all words."""

    symbol: str
    target: Key
    word: int
    target_word: int


class Synset(NamedTuple):
    """Words with one meaning. category: number of the lexicographer's file."""

    key: Key
    category: int
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    links: tuple[Link, ...]

    @property
    def part(self) -> str:
        """Part of speech, a key of FILES."""
        return self.key[0]


@dataclass(frozen=True)
class WordNet:
    """All synsets in the order of the files, and the licence."""

    synsets: dict[Key, Synset]
    notice: str

    @cached_property
    def _senses(self) -> dict[tuple[str, str], list[Synset]]:
        found: dict[tuple[str, str], list[Synset]] = {}
        for synset in self.synsets.values():
            for lemma in dict.fromkeys(map(lemma_of, synset.words)):
                found.setdefault((synset.part, lemma), []).append(synset)
        return found

    def senses(self, part: str, word: str) -> list[Synset]:
        """The synsets that a word is in, in any spelling of its capitals."""
        return self._senses.get((part, lemma_of(word)), [])

    def linked(self, synset: Synset, *symbols: str) -> Iterator[Synset]:
        """Where the links with these symbols lead."""
        return (self.synsets[link.target] for link in synset.links if link.symbol in symbols)

    def leads_to(self, part: str, word: str, other: str, *symbols: str) -> bool:
        """Whether any meaning of a word is one of another word's, or leads to one over links with these symbols."""
        goals = {synset.key for synset in self.senses(part, other)}
        waiting = self.senses(part, word)[:]
        seen = {synset.key for synset in waiting}
        while waiting:
            synset = waiting.pop()
            if synset.key in goals:
                return True
            further = [target for target in self.linked(synset, *symbols) if target.key not in seen]
            seen.update(target.key for target in further)
            waiting += further
        return False


def lemma_of(word: str) -> str:
    """What two spellings of a word have in common."""
    return word.casefold()


def read_wordnet(folder: Path) -> WordNet:
    """The synsets of a folder; raises UserError for files that are missing, unreadable or in another form."""
    lacking = [name for name in FILES.values() if not (folder / name).is_file()]
    if lacking:
        raise UserError(
            f"--wordnet {folder} has no {', '.join(lacking)}; give the folder of WordNet's data files, which is "
            "/usr/share/wordnet where Debian's package wordnet-base is installed."
        )
    synsets: dict[Key, Synset] = {}
    notices = []
    for part, name in FILES.items():
        path = folder / name
        notice, found = _read_file(path, part)
        if not found:
            raise UserError(f"{path} has no synset; take the file as WordNet 3.0 has it.")
        notices.append(notice)
        synsets.update((synset.key, synset) for synset in found)
    if not notices[0]:
        raise UserError(
            f"{folder / FILES['noun']} does not begin with the licence, which has to stay with what is made of "
            "WordNet; take the file as WordNet 3.0 has it."
        )
    wordnet = WordNet(synsets, notices[0])
    _check_links(wordnet, folder)
    return wordnet


def _read_file(path: Path, part: str) -> tuple[str, list[Synset]]:
    """(licence, synsets) of one file."""
    notice: list[str] = []
    synsets = []
    try:
        lines = path.read_text(encoding="latin-1").split("\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check it, or take another copy.") from error
    for number, line in enumerate(lines, start=1):
        if line.startswith("  "):
            notice.append(re.sub(r"^ +\d+ ?", "", line).rstrip())
        elif line.strip():
            try:
                synsets.append(_synset_of(line, part))
            except ValueError as fault:
                raise UserError(
                    f"line {number} of {path} is no synset, because {fault}; take the file as WordNet 3.0 has it."
                ) from fault
    return "\n".join(notice).strip(), synsets


def _synset_of(line: str, part: str) -> Synset:
    """Raises ValueError with the reason, to be read after "because"."""
    head, bar, gloss = line.partition("| ")
    fields = head.split()
    if not bar or not gloss.strip():
        raise ValueError("it has no definition behind a bar")
    try:
        count = int(fields[3], 16)
        first = 5 + 2 * count
        num_links = int(fields[first - 1])
        end = first + 4 * num_links
        links = [_link_of(fields[at : at + 4]) for at in range(first, end, 4)]
        place, category = int(fields[0]), int(fields[1])
        frames = 1 + 3 * int(fields[end]) if part == "verb" and len(fields) > end else 0
    except (ValueError, IndexError, KeyError):
        raise ValueError("its numbers, words and links are not as many or not what its counts say") from None
    if LETTERS.get(fields[2]) != part:
        raise ValueError(f"its part of speech is {fields[2]} among those of each {part}")
    if not count or len(fields) != end + frames:
        raise ValueError(f"it has {len(fields)} fields where its counts ask for {end + frames}")
    definition, examples = _parts_of(gloss)
    words = tuple(map(_spelled, fields[4 : first - 1 : 2]))
    return Synset((part, place), category, words, definition, examples, tuple(links))


def _link_of(fields: list[str]) -> Link:
    symbol, place, letter, words = fields
    return Link(symbol, (LETTERS[letter], int(place)), int(words[:2], 16), int(words[2:], 16))


def _spelled(word: str) -> str:
    """As people write it: data.adj has (a), (p) or (ip) behind words that stand in some places alone."""
    return re.sub(r"\((?:a|p|ip)\)$", "", word).replace("_", " ")


def _parts_of(gloss: str) -> tuple[str, tuple[str, ...]]:
    """(definition, examples). A quotation within the definition, with a word right before it, is not an example."""
    begin = gloss.find('; "')
    definition, rest = (gloss, "") if begin < 0 else (gloss[:begin], gloss[begin:])
    examples = (" ".join(example.split()) for example in re.findall(r'"([^"]+)"', rest))
    return " ".join(definition.split()).rstrip(" ;"), tuple(filter(None, examples))


def _check_links(wordnet: WordNet, folder: Path) -> None:
    """Raise UserError for a link to a synset or a word that is not there."""
    for synset in wordnet.synsets.values():
        for link in synset.links:
            target = wordnet.synsets.get(link.target)
            if target is None or link.word > len(synset.words) or link.target_word > len(target.words):
                raise UserError(
                    f"{folder / FILES[synset.part]}: {synset.words[0]}, at {synset.key[1]:08d}, has a link to "
                    f"{link.target[0]} {link.target[1]:08d} that leads nowhere; take all files of one WordNet."
                )
