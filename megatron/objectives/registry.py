"""The table of objectives."""

from megatron.basics.registry import Registry

OBJECTIVES = Registry(
    "--objective",
    {
        "full_lm": "megatron.objectives.full_lm:FullLM",
        "prefix_lm": "megatron.objectives.prefix_lm:PrefixLM",
        "span_corruption": "megatron.objectives.span_corruption:SpanCorruption",
    },
)
