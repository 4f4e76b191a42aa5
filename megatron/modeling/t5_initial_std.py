"""T5's initial weights: each matrix by the width of what it reads."""

from __future__ import annotations

from megatron.modeling.options import ModelOptions


def t5_initial_std(options: ModelOptions, name: str) -> float | tuple[float, ...]:
    """Standard deviation of a matrix by its global name; one for each projection where it stacks several.

    Projections begin at 1 / sqrt(inputs), and queries over sqrt(head width) more, because scores are not scaled
    (--softmax-scale 1). Embeddings and the output layer begin at 1. Source: Raffel et al. 2020 (their code; the same as
    transformers' T5 with an initializer factor of 1).
    """
    reads_hidden = options.hidden_size**-0.5
    query = (options.hidden_size * options.head_size) ** -0.5
    if "embeddings" in name or name == "output_layer.weight":
        return 1.0
    if name.endswith("linear_qkv.weight"):
        return query, reads_hidden, reads_hidden
    if name.endswith("linear_q.weight"):
        return query
    if name.endswith("linear_proj.weight"):
        return (options.num_attention_heads * options.head_size) ** -0.5
    if name.endswith("linear_fc2.weight"):
        return options.ffn_size**-0.5
    return reads_hidden
