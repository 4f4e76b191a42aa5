"""The state of Adafactor as parts of global tensors: all of it, each under its shape, without a copy."""

import pytest

from megatron.checkpoint.replicated_boxes import replicated_boxes
from megatron.checkpoint.state import model_state
from megatron.layout.options import LayoutOptions
from megatron.loop.options import OptimizerOptions
from megatron.loop.setup import compute_dtype, make_trainable
from tests.oracles.one_process_model import build_decoder, recipe_of

MODEL = {
    "num_layers": 1,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "kv_channels": 128,
    "ffn_hidden_size": 192,
    "activation": "geglu",
    "position_embedding_type": "relative",
    "make_vocab_size_divisible_by": 128,
    "disable_bias_linear": True,
}
LAYER = "decoder.layers.0"


@pytest.mark.parametrize("precision", [{}, {"bf16": True}], ids=["float32", "bf16"])
def test_boxes_are_views_of_the_optimizer(precision: dict[str, bool]) -> None:
    options = OptimizerOptions(optimizer="adafactor", **precision)
    config, chunk = build_decoder(recipe_of(MODEL, max_positions=8, vocabulary_size=200), dtype=compute_dtype(options))
    trainable = make_trainable(config, [chunk], LayoutOptions(), options)
    optimizer = trainable.inner_optimizer
    boxes = replicated_boxes(optimizer, model_state([chunk]))
    states = [state for parameter in optimizer.masters for state in optimizer.states_of(parameter).values()]
    memory = {state.untyped_storage().data_ptr() for state in states}
    assert {box.data.untyped_storage().data_ptr() for box in boxes} == memory
    assert sum(box.data.numel() for box in boxes) == sum(state.numel() for state in states)
    shapes = {box.key.removeprefix("optimizer.state."): box.global_shape for box in boxes}
    assert shapes[f"exp_avg_sq_row.{LAYER}.self_attention.linear_qkv.weight"] == (768,)
    assert shapes[f"exp_avg_sq_col.{LAYER}.self_attention.linear_qkv.weight"] == (3, 128)
    assert shapes[f"exp_avg_sq_row.{LAYER}.mlp.linear_fc1.weight"] == (384,)
    assert shapes[f"exp_avg_sq_col.{LAYER}.mlp.linear_fc1.weight"] == (2, 128)
    assert shapes[f"exp_avg_sq_col.{LAYER}.mlp.linear_fc2.weight"] == (1, 192)
    assert shapes["exp_avg_sq_row.embedding.word_embeddings.weight"] == (256,)
    assert shapes[f"exp_avg_sq.{LAYER}.self_attention.core_attention.relative_bias.weight"] == (2, 32)
    assert shapes[f"exp_avg_sq.{LAYER}.input_layernorm.weight"] == (128,)
    gate_and_up = [box for box in boxes if box.key == f"optimizer.state.exp_avg_sq_row.{LAYER}.mlp.linear_fc1.weight"]
    assert sorted((box.global_offset, tuple(box.data.shape)) for box in gate_and_up) == [
        ((0,), (192,)),
        ((192,), (192,)),
    ]
