"""Any command line at all becomes a run or a UserError, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.basics.option import flag_of
from megatron.cli.run_config import SECTIONS, RunConfig
from megatron.cli.values import FieldType, field_types

ALL_FLAGS: dict[str, FieldType] = {
    flag_of(name): wanted for options in SECTIONS.values() for name, wanted in field_types(options).items()
}
SIZES = st.sampled_from([0, 1, 2, 3, 4, 6, 8, 12, 64, 100, 768, 10**6, 10**12 + 39, 2**63 - 1, 2**63, -1])


def _words(flag: str) -> st.SearchStrategy[list[str]]:
    wanted = ALL_FLAGS[flag]
    if wanted.scalar is bool:
        return st.sampled_from([[flag], [f"{flag}=false"], [flag, "x"]])
    numbers = st.one_of(SIZES.map(str), st.sampled_from(["0.5", "1e-5", "nan", "-inf", "1e309", "x", ""]))
    texts = st.sampled_from(
        ["full", "block", "rope", "relative", "swiglu", "WSD", "linear", "1,1", "\0", "/", ".", "é"]
    )
    values = numbers if wanted.scalar is not str else st.one_of(texts, numbers)
    return st.lists(values, min_size=0, max_size=4 if wanted.is_list else 1).map(lambda value: [flag, *value])


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    words=st.lists(st.sampled_from(sorted(ALL_FLAGS)), max_size=8, unique=True).flatmap(
        lambda flags: st.tuples(*map(_words, flags))
    ),
    world_size=st.sampled_from([1, 2, 3, 4, 8, 10**9]),
)
def test_any_command_line_is_a_run_or_a_user_error(
    words: tuple[list[str], ...],
    world_size: int,
    sound_flags: list[str],
    parse_run: Callable[[list[str], int], RunConfig],
) -> None:
    try:
        config = parse_run([*sound_flags, *itertools.chain(*words)], world_size)
    except UserError as error:
        assert error.faults
        assert all(fault.strip() for fault in error.faults)
    else:
        assert RunConfig.from_dict(config.as_dict()) == config
