"""What a written answer is worth beside the targets: equality, F1 over words, ROUGE; the best target counts.

The texts of templates without answer choices have no other measure. promptsource names metrics as T0's tasks do, which
compute them by T5's library (t5/evaluation/metrics.py and qa_utils.py). Not measured here: BLEU, correlations, edit
distances, and Span Squad, whose answers are places in a context that a prompt does not keep.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

EXACT_MATCH = "exact_match"  # the same text but for spaces around it
SQUAD = ("squad_exact_match", "f1")  # of words without case, punctuation and articles (Rajpurkar et al. 2016)
TRIVIA_QA = ("trivia_qa_exact_match", "trivia_qa_f1")  # the same, where punctuation parts words (Joshi et al. 2017)
ROUGE = ("rouge1", "rouge2", "rougeLsum")

# By the names that templates have in their metadata. "Other" is accuracy in T0, too (t-zero, t0/seqio_tasks/tasks.py).
METRICS_BY_NAME = {
    "Accuracy": (EXACT_MATCH,),
    "Other": (EXACT_MATCH,),
    "Sequence Accuracy": (EXACT_MATCH,),
    "Squad": SQUAD,
    "Trivia QA": TRIVIA_QA,
    "COQA F1": SQUAD,
    "ROUGE": ROUGE,
}
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# By what words are told apart: nothing in the place of punctuation, or a space, then also of quotes that are not ASCII.
_PUNCTUATION: dict[tuple[str, ...], dict[int, str | None]] = {
    SQUAD: dict.fromkeys(map(ord, string.punctuation)),
    TRIVIA_QA: {ord(mark): " " for mark in string.punctuation + "\u2018\u2019\u00b4"},
}


def metrics_of(names: Sequence[str]) -> tuple[str, ...]:
    """The metrics that a template's metadata asks for, each once; those that are not computed here are left out."""
    return tuple(dict.fromkeys(metric for name in names for metric in METRICS_BY_NAME.get(name, ())))


def measure(metrics: Sequence[str], written: str, targets: Sequence[str]) -> dict[str, float]:
    """Each of the metrics between 0 and 1: the most that any of the targets gives."""
    found = {EXACT_MATCH: max(float(written.strip() == target.strip()) for target in targets)}
    for names, punctuation in _PUNCTUATION.items():
        if not set(metrics).isdisjoint(names):
            own, *wanted = (_words(text, punctuation) for text in (written, *targets))
            values = (max(float(own == target) for target in wanted), max(_f1(own, target) for target in wanted))
            found |= zip(names, values, strict=True)
    if not set(metrics).isdisjoint(ROUGE):
        best = _rouge_scorer().score_multi([*map(_by_sentences, targets)], _by_sentences(written))
        found |= {metric: float(best[metric].fmeasure) for metric in ROUGE}
    return {metric: found[metric] for metric in metrics}


def _words(text: str, punctuation: dict[int, str | None]) -> list[str]:
    """Without case, punctuation, articles and spare spaces: none, where that is all there is."""
    return _ARTICLES.sub(" ", text.lower().translate(punctuation)).split()


def _f1(written: Sequence[str], target: Sequence[str]) -> float:
    """The harmonic mean of the shares of words of each that the other has; 0 where neither has any."""
    shared = sum((Counter(written) & Counter(target)).values())
    return 2 * shared / (len(written) + len(target)) if shared else 0.0


def _by_sentences(text: str) -> str:
    """A line for each sentence, by which rougeLsum compares, parted where T5 parts them."""
    return text.replace(" . ", " .\n")


@cache
def _rouge_scorer() -> Any:
    """Google's scorer, without stemming, as T5 and T0 use it (Lin 2004)."""
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, a second

    return RougeScorer(list(ROUGE))
