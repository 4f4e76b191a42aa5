"""Makes the examples of the tasks that are held out, which ask how two sentences, words or verbs go together.

`label` is 1 for one meaning in both sentences, for opposites, and for a verb that implies the other; otherwise 0.
"""

from __future__ import annotations

from itertools import combinations
from random import Random

from wordnet.data_files import CAUSES, ENTAILS, KIND_OF, Synset, lemma_of
from wordnet.drawing import Row, alternating, shuffled
from wordnet.sides import Side, opposites_of, plain

FEWEST_WORDS = 4  # of a sentence that shows how a word is used
MOST_PAIRS_OF_A_WORD = 2  # with each label


def sense_rows(side: Side, limit: int, chance: Random) -> list[Row]:
    """Does a word mean the same in two sentences? Of each word there are as many pairs of one kind as of the other."""
    uses: dict[tuple[str, str], list[tuple[str, list[str]]]] = {}
    for entry in side.entries.values():
        for word in entry.words:
            shown = [example for example in entry.examples if shows(word, example)]
            if shown:
                uses.setdefault((entry.synset.part, lemma_of(word)), []).append((word, shown))
    rows: tuple[list[Row], list[Row]] = ([], [])
    for (part, _), senses in uses.items():
        same = [pair for _, shown in senses for pair in combinations(shown, 2)]
        different = [(a, b) for (_, one), (_, two) in combinations(senses, 2) for a in one for b in two if a != b]
        count = min(MOST_PAIRS_OF_A_WORD, len(same), len(different))
        for label, pairs in enumerate((different, same)):
            for pair in shuffled(pairs, chance)[:count]:
                first, second = shuffled(pair, chance)
                found = {"word": senses[0][0], "part_of_speech": part, "sentence_1": first, "sentence_2": second}
                rows[label].append({**found, "label": label})
    return alternating(rows, limit, chance)


def opposite_rows(side: Side, limit: int, chance: Random) -> list[Row]:
    """Are two words opposites or synonyms? Of each part of speech there are as many of the one as of the other."""
    rows: tuple[list[Row], list[Row]] = ([], [])
    for part in dict.fromkeys(key[0] for key in side.entries):
        opposites: dict[frozenset[str], tuple[str, str]] = {}
        synonyms: dict[frozenset[str], tuple[str, str]] = {}
        for entry in side.of(part):
            for pair in combinations(entry.words, 2):
                synonyms.setdefault(frozenset(map(lemma_of, pair)), pair)
            for pair in opposites_of(side.wordnet, entry.synset):
                if pair[0] in entry.words:  # its opposite is on the same side
                    opposites.setdefault(frozenset(map(lemma_of, pair)), pair)
        unclear = opposites.keys() & synonyms.keys()
        found = [
            [pair for key, pair in known.items() if key not in unclear and letters(pair[0]) != letters(pair[1])]
            for known in (synonyms, opposites)
        ]
        count = min(map(len, found))
        for label, pairs in enumerate(found):
            for pair in shuffled(pairs, chance)[:count]:
                first, second = shuffled(pair, chance)
                rows[label].append({"word_1": first, "word_2": second, "part_of_speech": part, "label": label})
    return alternating(rows, limit, chance)


def entailment_rows(side: Side, limit: int, chance: Random) -> list[Row]:
    """Does what one verb says imply the other? Wrong ones: the other way round, or what another verb implies."""
    links = [
        (entry.synset, target)
        for entry in side.of("verb")
        for target in side.wordnet.linked(entry.synset, ENTAILS, CAUSES)
        if lemma_of(entry.synset.words[0]) != lemma_of(target.words[0])
    ]

    def row(synset: Synset, other: Synset, label: int) -> Row:
        return {
            "verb": synset.words[0],
            "definition": synset.definition,
            "other_verb": other.words[0],
            "other_definition": other.definition,
            "label": label,
        }

    def is_false(synset: Synset, other: Synset) -> bool:
        return not side.wordnet.leads_to("verb", synset.words[0], other.words[0], ENTAILS, CAUSES, KIND_OF)

    rows: tuple[list[Row], list[Row]] = ([], [])
    for number, (synset, other) in enumerate(shuffled(links, chance)):
        wrong = [(other, synset), (synset, chance.choice(links)[1])]
        first = number % 2
        false = [pair for pair in wrong[first:] + wrong[:first] if is_false(*pair)]
        if false:
            rows[0].append(row(*false[0], 0))
            rows[1].append(row(synset, other, 1))
    return alternating(rows, limit, chance)


def shows(word: str, sentence: str) -> bool:
    """Whether a sentence has a word in one of its regular forms."""
    stem = plain(word)
    doubled = stem + stem[-1:]
    forms = [stem + ending for ending in ("", "s", "es", "d", "ed", "ing")]
    forms += [stem[:-1] + ending for ending in ("ies", "ied", "ing")] + [doubled + "ed", doubled + "ing"]
    padded = f" {plain(sentence)} "
    return len(sentence.split()) >= FEWEST_WORDS and any(f" {form} " in padded for form in forms)


def letters(word: str) -> str:
    """What several spellings of a word have in common."""
    return plain(word).replace(" ", "")
