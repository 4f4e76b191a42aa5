"""The table of objectives."""

from megatron.basics.registry import Registry

OBJECTIVES = Registry(
    "--objective",
    {
        "full_lm": "megatron.objectives.full_lm:FullLM",
        "prefix_lm": "megatron.objectives.prefix_lm:PrefixLM",
        "span_corruption": "megatron.objectives.span_corruption:SpanCorruption",
        "ul2": "megatron.objectives.ul2:UL2",
        "fill_in_the_middle": "megatron.objectives.fill_in_the_middle:FillInTheMiddle",
        "multitask": "megatron.objectives.multitask:Multitask",
    },
)
