"""A WordNet of words that nobody uses, in the form of wndb(5), and what is true of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count, islice, product
from pathlib import Path

NOTICE = "This is not WordNet. Do with it what you like."
FILES = {"n": "data.noun", "v": "data.verb", "a": "data.adj", "r": "data.adv"}
CATEGORIES = {5: "animal", 13: "food", 18: "person", 20: "plant", 25: "shape", 28: "time"}
Pair = tuple[str, str]


@dataclass
class MadeUp:
    """Synsets as they were written down, and facts, by their texts."""

    lines: dict[str, list[str]] = field(default_factory=lambda: {letter: [] for letter in FILES})
    meanings: dict[str, set[str]] = field(default_factory=dict)  # definition -> words
    uses: dict[str, tuple[str, str]] = field(default_factory=dict)  # sentence -> (definition, word)
    category_of: dict[str, str] = field(default_factory=dict)  # definition of a noun -> category
    kinds: set[Pair] = field(default_factory=set)
    opposites: set[frozenset[str]] = field(default_factory=set)
    synonyms: set[frozenset[str]] = field(default_factory=set)
    implied: set[Pair] = field(default_factory=set)
    _places: count[int] = field(default_factory=lambda: count(100))

    def place(self) -> int:
        """Where the next synset will be."""
        return next(self._places)

    def add(
        self,
        letter: str,
        words: list[str],
        *links: str,
        place: int | None = None,
        category: int = 0,
        num_examples: int = 1,
        written: list[str] | None = None,
        number: int | None = None,
    ) -> int:
        """A synset; written: its words as the file has them; number: in its definition. Gives back its place."""
        place = self.place() if place is None else place
        definition = f'what is "known" by the number {number or place}; made up'
        sentences = [f"on day {place} number {turn} the {words[0]} was here" for turn in range(num_examples)]
        gloss = "; ".join([definition, *(f'"{sentence}"' for sentence in sentences)])
        fields = [f"{place:08d}", f"{category:02d}", "s" if letter == "a" and place % 2 else letter]
        fields += [f"{len(words):02x}", *(f"{word.replace(' ', '_')} 0" for word in written or words)]
        fields += [f"{len(links):03d}", *links, *(["02 + 01 00 + 02 01"] if letter == "v" else [])]
        self.lines[letter].append(f"{' '.join(fields)} | {gloss}  ")
        self.meanings.setdefault(definition, set()).update(words)
        self.uses.update((sentence, (definition, words[0])) for sentence in sentences)
        self.synonyms |= {frozenset((one, two)) for one in words for two in words if one != two}
        if category in CATEGORIES:
            self.category_of[definition] = CATEGORIES[category]
        return place

    def write(self, folder: Path) -> Path:
        """The four files."""
        folder.mkdir(parents=True, exist_ok=True)
        for letter, name in FILES.items():
            text = "\n".join([f"  1 {NOTICE}  ", "  2  ", *self.lines[letter]]) + "\n"
            (folder / name).write_text(text, encoding="latin-1")
        return folder


def made_up_wordnet() -> MadeUp:
    """Enough words of every kind for both sides of every task, where two fifths of the words are evaluated on."""
    made = MadeUp()
    words = map("".join, product(("ba", "ko", "li", "mu", "ré", "ti"), ("dan", "fel", "gor", "hin"), "aeiou", "dlmst"))
    _add_nouns(made, words)
    for word in islice(words, 24):  # of two meanings, with sentences of both
        made.add("n", [word], category=3, num_examples=2)
        made.add("n", [word], category=3, num_examples=2)
    for _ in range(40):
        pair = [*islice(words, 2)]
        first, second = made.place(), made.place()
        for word, place, other in zip(pair, (first, second), (second, first), strict=True):
            made.add("a", [word], f"! {other:08d} a 0101", place=place, written=[f"{word}(p)"])
        made.opposites.add(frozenset(pair))
        made.add("a", [*islice(words, 2)])
    for _ in range(8):
        _add_chain(made, [*islice(words, 5)][::-1])
    for number in range(10):
        verb, other = islice(words, 2)
        place = made.add("v", [other])
        made.add("v", [verb], f"{'*>'[number % 2]} {place:08d} v 0000")
        made.implied.add((verb, other))
    for word in islice(words, 40):
        made.add("v", [word])
    for number, word in enumerate(islice(words, 40)):
        made.add("r", [word], number=1 + number // 4)  # four to a definition
    return made


def _add_chain(made: MadeUp, words: list[str]) -> None:
    """Adjectives of which each is the opposite of the next one."""
    places = [made.place() for _ in words]
    for number, (word, place) in enumerate(zip(words, places, strict=True)):
        beside = [other for other in (number - 1, number + 1) if 0 <= other < len(words)]
        made.add("a", [word], *(f"! {places[other]:08d} a 0101" for other in beside), place=place)
        made.opposites |= {frozenset((word, words[other])) for other in beside}


def _add_nouns(made: MadeUp, words: map[str]) -> None:
    """Of each category two kinds, with things of one word, of two words and with a synonym below."""
    for category in [*CATEGORIES, *CATEGORIES]:
        kind = next(words)
        above = made.add("n", [kind], category=category)
        for number in range(10):
            word = next(words) if number < 6 else f"{next(words)} {next(words)}"
            synonyms = [next(words)] if number in (3, 4, 5) else []
            made.add("n", [word, *synonyms], f"@ {above:08d} n 0000", category=category)
            made.kinds |= {(name, kind) for name in (word, *synonyms)}
