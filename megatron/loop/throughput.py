"""Parameters, floating-point operations and the share of a device's peak, from the shape of the model."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.modeling.options import ModelOptions

# Dense bfloat16 TFLOP/s of one device, by a part of its name, from NVIDIA's data sheets; the first match counts.
PEAK_TFLOPS = {
    "GB200": 2500.0,
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
}


@dataclass(frozen=True)
class ParameterCount:
    """Weights of a model. `total` includes the padding of the vocabulary; `non_embedding` leaves out token and position
    tables and an untied output layer (the count of Kaplan et al. 2020, section 2.1)."""

    total: int
    non_embedding: int


def decoder_parameters(model: ModelOptions, *, padded_vocabulary_size: int, max_positions: int) -> ParameterCount:
    """Weights of a decoder-only model, whatever its layout."""
    hidden, biased = model.hidden_size, not model.disable_bias_linear
    norm_width = 2 if model.normalization == "LayerNorm" else 1
    query, key_value = _attention_widths(model)
    fc1_width = model.ffn_size * (2 if model.is_gated else 1)
    layer = _layer_matrix_weights(model) + 2 * norm_width * hidden
    if biased:
        layer += hidden + fc1_width + hidden
    if biased or model.add_qkv_bias:
        layer += query + 2 * key_value
    if model.qk_layernorm:
        layer += 2 * norm_width * model.head_size
    if model.position_embedding_type == "relative":
        layer += model.relative_attention_num_buckets * model.num_attention_heads
    non_embedding = model.num_layers * layer + norm_width * hidden
    tables = padded_vocabulary_size * hidden * (2 if model.untie_embeddings_and_output_weights else 1)
    if model.position_embedding_type == "learned_absolute":
        tables += max_positions * hidden
    return ParameterCount(total=non_embedding + tables, non_embedding=non_embedding)


def decoder_flops_per_token(
    model: ModelOptions, *, padded_vocabulary_size: int, seq_length: int, visible_fraction: float | None = None
) -> float:
    """Floating-point operations per token of a training step: forward once, backward twice as much.

    Counts matrix products alone (2 for a multiplication and addition): projections, feed-forward, vocabulary head, and
    the two products of attention over the share of the seq_length^2 scores that is visible. None is a causal mask,
    (seq_length + 1) / (2 seq_length); 1.0 is what a kernel without skipping computes. Recomputed activations are not
    counted: they are time, not progress (Chowdhery et al. 2022, appendix B).
    """
    if visible_fraction is None:
        visible_fraction = (seq_length + 1) / (2 * seq_length)
    query_width, _ = _attention_widths(model)
    scores_and_mix = 2 * query_width * seq_length * visible_fraction
    multiplications = model.num_layers * (_layer_matrix_weights(model) + scores_and_mix)
    multiplications += model.hidden_size * padded_vocabulary_size
    return 3.0 * 2.0 * multiplications


def peak_tflops_of(device_name: str) -> float | None:
    """Known dense bfloat16 peak of a device, or None (CPUs, other GPUs): then there is no MFU without --peak-tflops."""
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in device_name), None)


@dataclass(frozen=True)
class Throughput:
    """Turns tokens per second into model TFLOP/s of each device and a share of its peak."""

    flops_per_token: float
    peak_tflops: float | None = None

    def tflops_per_device(self, tokens_per_second: float, num_devices: int) -> float:
        """Model TFLOP/s of one of `num_devices` that together train `tokens_per_second`."""
        return tokens_per_second * self.flops_per_token / num_devices / 1e12

    def mfu(self, tflops_per_device: float) -> float | None:
        """Model FLOPs utilisation, 0 to 1 (Chowdhery et al. 2022, appendix B); None where the peak is not known."""
        return None if self.peak_tflops is None else tflops_per_device / self.peak_tflops


def _attention_widths(model: ModelOptions) -> tuple[int, int]:
    """Columns of all query heads, and of all key (or value) heads."""
    return model.num_attention_heads * model.head_size, model.query_groups * model.head_size


def _layer_matrix_weights(model: ModelOptions) -> int:
    query, key_value = _attention_widths(model)
    attention = model.hidden_size * (query + 2 * key_value) + query * model.hidden_size
    return attention + model.hidden_size * model.ffn_size * (3 if model.is_gated else 2)
