"""Lines of answers, written and read."""

from hypothesis import given
from hypothesis import strategies as st

from megatron.evaluation.answer_lines import LINE, answer_line, answers_in


def test_a_place_for_each_example():
    assert answer_line([0, 3, 4], [True, False, True]) == "1--01"
    assert answers_in("1--01") == {0: True, 3: False, 4: True}
    assert answer_line([], []) == ""


@given(st.dictionaries(st.integers(0, 200), st.booleans()))
def test_what_is_written_is_read(answers):
    line = answer_line([*answers], [*answers.values()])
    assert LINE.fullmatch(line) and answers_in(line) == answers
