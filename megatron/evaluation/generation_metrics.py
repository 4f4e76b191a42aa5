"""What a written answer is worth beside the targets: exact match, F1 over words, ROUGE; the best target counts.

The texts of templates without answer choices have no other measure. promptsource names metrics as T0's tasks do.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

EXACT_MATCH, F1 = "exact_match", "f1"
ROUGE = ("rouge1", "rouge2", "rougeL")

# By the names that templates have in their metadata. "Other" is accuracy in T0, too (t-zero, t0/seqio_tasks/tasks.py).
METRICS_BY_NAME = {
    "Accuracy": (EXACT_MATCH,),
    "Other": (EXACT_MATCH,),
    "Sequence Accuracy": (EXACT_MATCH,),
    "Squad": (EXACT_MATCH, F1),
    "Span Squad": (EXACT_MATCH, F1),
    "Trivia QA": (EXACT_MATCH, F1),
    "COQA F1": (EXACT_MATCH, F1),
    "ROUGE": ROUGE,
}
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def metrics_of(names: Sequence[str]) -> tuple[str, ...]:
    """The metrics that a template's metadata asks for, each once; those that are not computed here are left out."""
    return tuple(dict.fromkeys(metric for name in names for metric in METRICS_BY_NAME.get(name, ())))


def measure(metrics: Sequence[str], written: str, targets: Sequence[str]) -> dict[str, float]:
    """Each of the metrics between 0 and 1: the most that any of the targets gives."""
    found = {}
    if EXACT_MATCH in metrics:
        found[EXACT_MATCH] = max(float(_normal(written) == _normal(target)) for target in targets)
    if F1 in metrics:
        found[F1] = max(_f1(_normal(written).split(), _normal(target).split()) for target in targets)
    rouge = [metric for metric in metrics if metric in ROUGE]
    if rouge:
        best = _rouge_scorer().score_multi(list(targets), written)
        found |= {metric: float(best[metric].fmeasure) for metric in rouge}
    return {metric: found[metric] for metric in metrics}


def _normal(text: str) -> str:
    """Without case, punctuation, articles and spare spaces (Rajpurkar et al. 2016), unless that leaves nothing."""
    words = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
    return " ".join(words) or text.strip().lower()


def _f1(written: Sequence[str], target: Sequence[str]) -> float:
    """The harmonic mean of the shares of words of each that the other has."""
    shared = sum((Counter(written) & Counter(target)).values())
    return 2 * shared / (len(written) + len(target)) if shared else 0.0


@cache
def _rouge_scorer() -> Any:
    """Google's scorer, without stemming, as T5 and T0 use it (Lin 2004)."""
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, a second

    return RougeScorer(list(ROUGE))
