"""Makes the examples of the tasks that are trained on: of one synset each, or of a noun and its kind.

`label` is the place of the answer among the choices, or 1 for yes and 0 for no. A wrong statement is one that is false
of every meaning that its words have in WordNet.
"""

from __future__ import annotations

import re
from itertools import chain
from random import Random

from wordnet.data_files import INSTANCE_OF, KIND_OF, Synset
from wordnet.drawing import MOST_DRAWS, NUM_CHOICES, OtherWords, Row, balanced, put_among, shuffled
from wordnet.sides import Entry, Side, plain

BLANK = "____"
FEWEST_WORDS = 4  # of a sentence with a blank
IN_A_WORD = re.compile(r"[\w'-]")
# Lexicographers' files of nouns in words; file 3 has the few beginnings of all hierarchies.
CATEGORIES = {
    4: "act",
    5: "animal",
    6: "man-made object",
    7: "attribute",
    8: "body part",
    9: "thought",
    10: "communication",
    11: "event",
    12: "feeling",
    13: "food",
    14: "group",
    15: "place",
    16: "motive",
    17: "natural object",
    18: "person",
    19: "natural phenomenon",
    20: "plant",
    21: "possession",
    22: "process",
    23: "quantity",
    24: "relation",
    25: "shape",
    26: "state",
    27: "substance",
    28: "time",
}


def definition_rows(side: Side, limit: int, chance: Random) -> list[Row]:
    """Which of four words has this definition? One question for each synset."""
    answers = ((entry.synset.part, word) for entry in side.entries.values() for word in entry.words)
    others = OtherWords(answers, side.wordnet, chance)

    def means(part: str, word: str, definition: str) -> bool:
        return any(plain(synset.definition) == plain(definition) for synset in side.wordnet.senses(part, word))

    def make(entry: Entry, place: int) -> Row | None:
        part, definition, word = entry.synset.part, entry.synset.definition, chance.choice(entry.words)
        wrong = others.draw(part, word)
        if wrong is None or mentions(definition, word) or any(means(part, other, definition) for other in wrong):
            return None
        return {
            "part_of_speech": part,
            "definition": definition,
            "choices": put_among(wrong, word, place),
            "label": place,
        }

    return balanced(shuffled(side.entries.values(), chance), limit, NUM_CHOICES, make)


def truth_rows(side: Side, limit: int, chance: Random) -> list[Row]:
    """Is this what the word means? A wrong definition is that of another word."""
    of_part: dict[str, list[Synset]] = {}
    for entry in side.entries.values():
        of_part.setdefault(entry.synset.part, []).append(entry.synset)

    def make(entry: Entry, label: int) -> Row | None:
        part, word = entry.synset.part, chance.choice(entry.words)
        own = {plain(synset.definition) for synset in side.wordnet.senses(part, word)}
        said = entry.synset if label else chance.choice(of_part[part])
        if mentions(said.definition, word) or (not label and plain(said.definition) in own):
            return None
        return {"word": word, "part_of_speech": part, "definition": said.definition, "label": label}

    return balanced(shuffled(side.entries.values(), chance), limit, 2, make)


def kind_rows(side: Side, limit: int, chance: Random) -> list[Row]:
    """Is a thing of the one noun a thing of the other? Wrong ones: the other way round, a sibling, another's kind."""
    members: dict[str, list[str]] = {}
    pairs = []
    for entry in side.of("noun"):
        for target in side.wordnet.linked(entry.synset, KIND_OF):
            if target.key in side.entries:
                word, kind = entry.words[0], side.entries[target.key].words[0]
                members.setdefault(kind, []).append(word)
                if not mentions(word, kind):
                    pairs.append((word, kind))

    def make(pair: tuple[str, str], label: int) -> Row | None:
        word, kind = pair
        if label:
            return {"word": word, "kind": kind, "label": label}
        wrong = [(kind, word), (word, chance.choice(members[kind])), (word, chance.choice(pairs)[1])]
        first = chance.randrange(len(wrong))
        for said, other in wrong[first:] + wrong[:first]:
            if not mentions(said, other) and not side.wordnet.leads_to("noun", said, other, KIND_OF, INSTANCE_OF):
                return {"word": said, "kind": other, "label": label}
        return None

    return balanced(shuffled(dict.fromkeys(pairs), chance), limit, 2, make)


def blank_rows(side: Side, limit: int, chance: Random) -> list[Row]:
    """Which of four words has been left out of this sentence?"""
    sentences = [
        (entry.synset.part, word, example[:at] + BLANK + example[at + len(word) :])
        for entry in side.entries.values()
        for example in entry.examples
        for word in entry.words
        for at in (only_place(word, example),)
        if at is not None
    ]
    others = OtherWords(((part, word) for part, word, _ in sentences), side.wordnet, chance)

    def make(found: tuple[str, str, str], place: int) -> Row | None:
        part, word, sentence = found
        wrong = others.draw(part, word)
        if wrong is None:
            return None
        return {
            "part_of_speech": part,
            "sentence": sentence,
            "choices": put_among(wrong, word, place),
            "label": place,
        }

    return balanced(shuffled(sentences, chance), limit, NUM_CHOICES, make)


def category_rows(side: Side, limit: int, chance: Random) -> list[Row]:
    """Which of four categories does a noun belong to? No category has more questions than another that has any left."""
    of_category: dict[int, list[Entry]] = {}
    for entry in shuffled(side.of("noun"), chance):
        if entry.synset.category in CATEGORIES:
            of_category.setdefault(entry.synset.category, []).append(entry)
    rounds = chain.from_iterable(
        [queue[turn] for queue in of_category.values() if turn < len(queue)]
        for turn in range(max(map(len, of_category.values()), default=0))
    )
    chosen = [entry for entry, _ in zip(rounds, range(limit), strict=False)]
    known = [entry.synset.category for entry in chosen]  # wrong ones are drawn as often as they are right elsewhere

    def make(entry: Entry, place: int) -> Row | None:
        right = entry.synset.category
        wrong: dict[int, None] = {}
        for _ in range(MOST_DRAWS):
            if len(wrong) == NUM_CHOICES - 1:
                break
            drawn = chance.choice(known)
            if drawn != right:
                wrong[drawn] = None
        else:
            return None
        return {
            "word": chance.choice(entry.words),
            "definition": entry.synset.definition,
            "choices": put_among([CATEGORIES[number] for number in wrong], CATEGORIES[right], place),
            "label": place,
        }

    return balanced(shuffled(chosen, chance), limit, NUM_CHOICES, make)


def mentions(text: str, word: str) -> bool:
    """Whether a text gives a word away: has it, or words that begin with it."""
    return f" {plain(word)}" in f" {plain(text)}"


def only_place(word: str, sentence: str) -> int | None:
    """Where a word begins that a sentence has once and in this form; None otherwise, and for what is no sentence."""
    at = sentence.find(word)
    if at < 0 or sentence.find(word, at + 1) >= 0 or len(sentence.split()) < FEWEST_WORDS:
        return None
    around = sentence[at - 1 : at] + " " + sentence[at + len(word) :][:1]
    return None if IN_A_WORD.search(around) else at
