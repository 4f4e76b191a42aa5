"""Memory estimates against the tables of the papers that they come from, and against what autograd keeps."""

import pytest
import torch

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.shapes import ModelShape
from megatron.architectures.weights import count_parameters
from megatron.layout.options import LayoutOptions
from megatron.loop.memory_estimate import estimate_memory, layer_activations, memory_of_rank
from megatron.loop.options import BatchOptions, OptimizerOptions
from megatron.loop.setup import make_trainable
from megatron.loop.training_size import TrainingSize
from megatron.modeling import feed_forward
from megatron.modeling.cross_attention import CrossAttention
from megatron.modeling.options import ModelOptions
from tests.oracles.one_process_model import batch_of, build_decoder, random_sequences, recipe_of

S, B, H, A, L, V = 2048, 4, 6144, 64, 48, 51200  # the 22B model of Korthikanti et al. 2022, table 3


def shape_of(model, architecture="causal_decoder", vocabulary_size=V, lengths=(S, S)):
    return ModelShape(
        architecture=ARCHITECTURES[architecture](),
        model=ModelOptions(**model),
        vocabulary_size=vocabulary_size,
        max_positions=max(lengths),
        lengths=lengths,
    )


def size_of(world_size=8, model=(), layout=(), batch=(), optimizer=()):
    model = {
        "num_layers": L,
        "hidden_size": H,
        "num_attention_heads": A,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "attention_backend": "fused_softmax",
        **dict(model),
    }
    return TrainingSize(
        shape=shape_of(model),
        layout=LayoutOptions(**{"tensor_model_parallel_size": 8, **dict(layout)}),
        batch=BatchOptions(**{"micro_batch_size": B, **dict(batch)}),
        optimizer=OptimizerOptions(**{"bf16": True, **dict(optimizer)}),
        world_size=world_size,
        has_plainly_causal_masks=True,
    )


def kept_by_layer(size):
    return layer_activations(size, size.shape.layers[0])


def test_layers_keep_what_table_2_says():
    whole = {"tensor_model_parallel_size": 1}
    assert kept_by_layer(size_of(layout=whole)) == pytest.approx(S * B * H * (34 + 5 * A * S / H))
    assert kept_by_layer(size_of()) == pytest.approx(S * B * H * (10 + 24 / 8 + 5 * A * S / (H * 8)))
    parallel = size_of(layout={"sequence_parallel": True})
    assert kept_by_layer(parallel) == pytest.approx(S * B * H / 8 * (34 + 5 * A * S / H))
    selective = {"sequence_parallel": True, "recompute_granularity": "selective"}
    assert kept_by_layer(size_of(layout=selective)) == S * B * H / 8 * 34


def test_full_recompute_keeps_layer_inputs_and_one_layer():
    layout = {"sequence_parallel": True, "recompute_granularity": "full"}
    difference = (
        estimate_memory(size_of(layout=layout)).activations
        - estimate_memory(size_of(layout=layout, model={"num_layers": L - 1})).activations
    )
    assert difference == 2 * S * B * H / 8  # table 2, last row: 2 s b h, here without the sequence-parallel gather


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"untie_embeddings_and_output_weights": True, "activation": "swiglu", "normalization": "RMSNorm"},
        {"disable_bias_linear": True, "position_embedding_type": "rope", "num_query_groups": 8, "qk_layernorm": True},
        {"position_embedding_type": "relative", "add_qkv_bias": True, "disable_bias_linear": True},
    ],
)
def test_one_device_holds_every_parameter(model):
    size = size_of(world_size=1, model=model, layout={"tensor_model_parallel_size": 1})
    assert size.parameters_of_rank(0) == count_parameters(size.shape).total


def test_pipeline_ranks_hold_every_parameter_once_and_a_tied_head_twice():
    size = size_of(layout={"tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 4})
    expected = count_parameters(size.shape)
    assert sum(size.parameters_of_rank(rank) for rank in range(4)) == expected.total + V * H


def test_bytes_for_each_parameter():
    size = size_of(world_size=16)
    (weights,) = size.buckets_of(size.shape.whole())
    assert size.parameters_of_rank(0) <= weights < size.parameters_of_rank(0) + 128
    estimate = estimate_memory(size)
    assert (estimate.weights, estimate.gradients, estimate.optimizer) == (2 * weights, 4 * weights, 12 * weights // 2)
    single = estimate_memory(size_of(world_size=16, optimizer={"bf16": False}))
    assert (single.weights, single.optimizer) == (4 * weights, 8 * weights // 2)


@pytest.mark.parametrize("groups", [1, 4], ids="groups-{}".format)
@pytest.mark.parametrize("activation", ["gelu", "geglu"])
@pytest.mark.parametrize("architecture", ["causal_decoder", "encoder_decoder"])
def test_adafactor_keeps_what_is_planned(groups, activation, architecture):
    """One group has 64 key rows beside 256 query rows: too few for two vectors, and they lie in one matrix."""
    model = {"num_layers": 1, "hidden_size": 128, "num_attention_heads": 4, "num_query_groups": groups}
    model |= {"kv_channels": 64, "activation": activation, "ffn_hidden_size": 192}
    optimizer = OptimizerOptions(optimizer="adafactor")
    recipe = recipe_of(model, max_positions=16, vocabulary_size=200, architecture=architecture, lengths=(16, 16))
    config, chunk = build_decoder(recipe)
    inner = make_trainable(config, [chunk], LayoutOptions(), optimizer).inner_optimizer
    kept = sum(state.nbytes for own in inner.optimizer.state.values() for state in own.values())
    size = TrainingSize(
        shape=shape_of(model, architecture, vocabulary_size=200, lengths=(16, 16)),
        layout=LayoutOptions(device="cpu"),
        batch=BatchOptions(micro_batch_size=1),
        optimizer=optimizer,
        world_size=1,
        has_plainly_causal_masks=True,
    )
    assert estimate_memory(size).optimizer == kept


def test_interleaving_costs_what_the_paper_says():
    """1 + (p - 1) / (p m) times the activations of the first stage (Korthikanti et al. 2022, section 4.2.3)."""
    many = {"global_batch_size": 64 * B}
    layout = {"pipeline_model_parallel_size": 4, "tensor_model_parallel_size": 1}
    model = {"hidden_dropout": 0.0}
    plain = size_of(world_size=4, model=model, layout=layout, batch=many)
    chunked = size_of(
        world_size=4, model=model, layout={**layout, "num_virtual_stages_per_pipeline_rank": 3}, batch=many
    )
    per_layer = kept_by_layer(plain)
    assert estimate_memory(plain).activations == L * per_layer
    assert estimate_memory(chunked).activations == L * (1 + 3 / (4 * 3)) * per_layer


def test_few_microbatches_fill_no_pipeline():
    layout = {"pipeline_model_parallel_size": 8, "tensor_model_parallel_size": 1}
    assert estimate_memory(size_of(layout=layout)).activations < L * kept_by_layer(size_of(layout=layout))


@pytest.mark.parametrize("chunks", [None, 2])
def test_the_fullest_device_is_among_the_different_ones(chunks):
    layout = {"tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 8}
    many = {"global_batch_size": 16 * B}
    size = size_of(layout={**layout, "num_virtual_stages_per_pipeline_rank": chunks}, batch=many)
    assert size.different_ranks == [0, 1, 7]
    totals = [memory_of_rank(size, rank).total for rank in range(8)]
    assert estimate_memory(size).total == max(totals)


def test_library_kernels_keep_no_scores():
    model = {"attention_backend": "auto", "hidden_dropout": 0.0}  # whose masks differ on CPU
    on_gpu = size_of(model=model, layout={"device": "cuda"})
    on_cpu = size_of(model=model, layout={"device": "cpu"})
    assert kept_by_layer(on_cpu) - kept_by_layer(on_gpu) == 5 * A * S * S * B / 8


def kept_by_autograd(chunk, run):
    """Bytes that a forward pass keeps, parameters of the chunk left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in chunk.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage  # holding it keeps its address from being used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run(chunk)
    return sum(storage.nbytes() for storage in kept.values())


def kept_by_decoder(model, dtype, rows=2, length=256):
    """Bytes that the forward pass of the real decoder keeps."""
    _, chunk = build_decoder(recipe_of(model, max_positions=length), backend="sdpa", dtype=dtype)
    batch = batch_of(random_sequences(rows, length))
    return kept_by_autograd(chunk, lambda chunk: chunk(batch))


@pytest.mark.parametrize("groups", [4, 2])
def test_norms_of_cross_attention_are_counted(groups):
    """Up to 5 %: the norms' statistics are not."""
    planned, kept = [], []
    for qk_layernorm in (False, True):
        model = {"num_layers": 1, "hidden_size": 256, "num_attention_heads": 4, "num_query_groups": groups}
        model |= {"qk_layernorm": qk_layernorm, "attention_backend": "sdpa"}
        shape = shape_of(model, "encoder_decoder", vocabulary_size=100, lengths=(64, 64))
        size = TrainingSize(
            shape=shape,
            layout=LayoutOptions(device="cpu"),
            batch=BatchOptions(micro_batch_size=2),
            optimizer=OptimizerOptions(),
            world_size=1,
            has_plainly_causal_masks=True,
        )
        encoder, decoder = (layer_activations(size, layer) for layer in shape.layers)
        planned.append(decoder - encoder)  # what cross attention adds
        recipe = recipe_of(model, max_positions=64, architecture="encoder_decoder", lengths=(64, 64))
        (attention,) = (part for part in build_decoder(recipe)[1].modules() if isinstance(part, CrossAttention))

        def attend(attention):
            hidden, context = torch.randn(2, 64, 2, 256, requires_grad=True).unbind()
            return sum(part.square().sum() for part in attention.get_query_key_value_tensors(hidden, context))

        kept.append(kept_by_autograd(attention, attend))
    assert planned[1] > planned[0]
    assert planned[1] - planned[0] == pytest.approx(kept[1] - kept[0], rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"activation": "swiglu", "disable_bias_linear": True},
        {"activation": "relu"},
        {"position_embedding_type": "rope", "num_query_groups": 2},
        {"qk_layernorm": True},
        {"num_query_groups": 2},
        {"normalization": "RMSNorm"},
        {"normalization": "RMSNorm", "qk_layernorm": True, "num_query_groups": 2, "position_embedding_type": "rope"},
        {"apply_layernorm_1p": True, "scale_embeddings": True},
        {"apply_layernorm_1p": True, "qk_layernorm": True, "normalization": "RMSNorm"},
    ],
    ids=str,
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_layer_keeps_what_autograd_keeps(variant, dtype, device, monkeypatch):
    """3 %: the norms' statistics and softmax sums, a few numbers a token, are not counted."""
    if device == "cuda":
        if "normalization" in variant:
            pytest.skip("on CPU torch has no RMSNorm that keeps what the one for GPUs keeps")
        monkeypatch.setattr(feed_forward, "native_ops_available", lambda: False)
    model = {"hidden_size": 256, "num_attention_heads": 4, "attention_backend": "sdpa", **variant}
    three, two = (kept_by_decoder({**model, "num_layers": layers}, dtype) for layers in (3, 2))
    size = TrainingSize(
        shape=shape_of({**model, "num_layers": 1}, vocabulary_size=100, lengths=(256, 0)),
        layout=LayoutOptions(device=device),
        batch=BatchOptions(micro_batch_size=2),
        optimizer=OptimizerOptions(bf16=dtype == torch.bfloat16),
        world_size=1,
        has_plainly_causal_masks=True,
    )
    assert kept_by_layer(size) == pytest.approx(three - two, rel=0.03)
