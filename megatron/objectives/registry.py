"""The table of objectives."""

from megatron.basics.registry import Registry

OBJECTIVES = Registry(
    "--objective",
    {
        "full_lm": "megatron.objectives.full_lm:FullLM",
    },
)
