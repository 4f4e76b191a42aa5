"""Metrics of written answers, against counts by hand."""

import pytest

from megatron.evaluation.generation_metrics import METRICS_BY_NAME, measure, metrics_of

QA = ("squad_exact_match", "f1")
ROUGE = ("rouge1", "rouge2", "rougeLsum")


@pytest.mark.parametrize(
    ("written", "targets", "exact", "f1"),
    [
        ("The Eiffel Tower.", ["eiffel tower"], 1, 1),
        ("eiffel", ["the Eiffel tower"], 0, 2 / 3),
        ("tower of Eiffel tower", ["Eiffel tower"], 0, 2 * 2 / 6),
        ("Rome", ["Paris", "Rome"], 1, 1),
        ("", ["Paris"], 0, 0),
        ("A", ["a"], 1, 0),  # an article is all there is
        ("+", ["-"], 1, 0),
        ("twenty-one", ["twentyone"], 1, 1),
        ("\u2018Rome\u2019", ["Rome"], 0, 0),
    ],
)
def test_answers_of_a_few_words(written, targets, exact, f1):
    assert measure(QA, written, targets) == {"squad_exact_match": exact, "f1": pytest.approx(f1)}


@pytest.mark.parametrize(
    ("written", "targets", "exact", "f1"),
    [
        ("twenty-one", ["twenty one"], 1, 1),
        ("twenty-one", ["twentyone"], 0, 0),
        ("The \u2018Eiffel_Tower\u2019\u00b4`", ["eiffel tower"], 1, 1),
        ("it\u2019s", ["it"], 0, 2 / 3),
        ("The-end", ["end"], 1, 1),  # an article that a mark parts from its word is one, too
        ("Rome", ["Paris", "Rome"], 1, 1),
    ],
)
def test_trivia_parts_words_at_punctuation(written, targets, exact, f1):
    found = measure(metrics_of(("Trivia QA",)), written, targets)
    assert found == {"trivia_qa_exact_match": exact, "trivia_qa_f1": pytest.approx(f1)}


@pytest.mark.parametrize(
    ("written", "targets", "exact"),
    [(" -3 ", ["-3"], 1), ("3", ["-3"], 0), ("Rome", ["rome"], 0), ("a cat", ["cat", "a cat\n"], 1)],
)
def test_accuracy_is_of_the_text_as_it_stands(written, targets, exact):
    """T5's and T0's `accuracy` compares strings; spaces around them are no part of targets here."""
    for name in ("Accuracy", "Other", "Sequence Accuracy"):
        assert measure(metrics_of((name,)), written, targets) == {"exact_match": exact}


def test_rouge_by_hand():
    """5 of 6 words, 3 of 5 pairs, and 5 words in their order; the target with the most counts, for each by itself."""
    target, written = "the cat sat on the mat", "the cat is on the mat"
    found = measure(ROUGE, written, [target])
    assert found == {"rouge1": pytest.approx(5 / 6), "rouge2": pytest.approx(3 / 5), "rougeLsum": pytest.approx(5 / 6)}
    assert measure(ROUGE, written, ["no such words", target]) == found
    assert measure(("rougeLsum",), "mat the", [target]) == {"rougeLsum": pytest.approx(2 * 1 / 8)}


def test_rouge_l_is_of_sentences_as_t5_parts_them():
    """Sentences in another order share all their words with those of the target; as one text they share three."""
    assert measure(("rougeLsum",), "c d e . a b", ["a b . c d e"]) == {"rougeLsum": 1.0}
    assert measure(("rougeLsum",), "c d e, a b", ["a b, c d e"]) == {"rougeLsum": pytest.approx(3 / 5)}


def test_metrics_by_the_names_of_templates():
    assert metrics_of(("BLEU", "ROUGE")) == ROUGE
    assert metrics_of(("Squad", "Accuracy")) == (*QA, "exact_match")
    assert metrics_of(("BLEU", "Pearson Correlation", "Span Squad")) == ()
    for metrics in METRICS_BY_NAME.values():
        assert set(measure(metrics, "a text", ["a text"]).values()) == {1.0}
