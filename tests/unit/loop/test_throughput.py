"""Parameter counts and FLOPs against a plain torch model and torch's own counter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from megatron.loop.throughput import Throughput, decoder_flops_per_token, decoder_parameters, peak_tflops_of
from megatron.modeling.options import ACTIVATIONS, ModelOptions

VOCABULARY, LENGTH = 96, 24


class PlainLayer(nn.Module):
    """A pre-norm layer, written out."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.options = options
        hidden, bias = options.hidden_size, not options.disable_bias_linear
        query = options.num_attention_heads * options.head_size
        key_value = options.query_groups * options.head_size
        norm = nn.LayerNorm if options.normalization == "LayerNorm" else nn.RMSNorm
        self.norm1, self.norm2 = norm(hidden), norm(hidden)
        self.query = nn.Linear(hidden, query, bias=bias or options.add_qkv_bias)
        self.key = nn.Linear(hidden, key_value, bias=bias or options.add_qkv_bias)
        self.value = nn.Linear(hidden, key_value, bias=bias or options.add_qkv_bias)
        self.out = nn.Linear(query, hidden, bias=bias)
        self.up = nn.Linear(hidden, options.ffn_size, bias=bias)
        self.gate = nn.Linear(hidden, options.ffn_size, bias=bias) if options.is_gated else None
        self.down = nn.Linear(options.ffn_size, hidden, bias=bias)
        if options.qk_layernorm:
            self.query_norm, self.key_norm = norm(options.head_size), norm(options.head_size)
        if options.position_embedding_type == "relative":
            self.bias_table = nn.Embedding(options.relative_attention_num_buckets, options.num_attention_heads)

    def forward(self, hidden: Tensor) -> Tensor:
        """[b, s, h] -> [b, s, h]; every score is computed, as a kernel without skipping does."""
        normed = self.norm1(hidden)
        query, key, value = (
            part.unflatten(-1, (-1, self.options.head_size)).transpose(1, 2)
            for part in (self.query(normed), self.key(normed), self.value(normed))
        )
        groups = self.options.num_attention_heads // self.options.query_groups
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        mixed = (query @ key.transpose(-1, -2)).softmax(-1) @ value
        hidden = hidden + self.out(mixed.transpose(1, 2).flatten(2))
        normed = self.norm2(hidden)
        up = F.gelu(self.up(normed)) if self.gate is None else F.silu(self.gate(normed)) * self.up(normed)
        return hidden + self.down(up)


class PlainDecoder(nn.Module):
    """Embeddings, layers, norm, vocabulary head."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, options.hidden_size)
        if options.position_embedding_type == "learned_absolute":
            self.positions = nn.Embedding(LENGTH, options.hidden_size)
        self.layers = nn.Sequential(*(PlainLayer(options) for _ in range(options.num_layers)))
        self.norm = (nn.LayerNorm if options.normalization == "LayerNorm" else nn.RMSNorm)(options.hidden_size)
        self.head = nn.Linear(options.hidden_size, VOCABULARY, bias=False)
        if not options.untie_embeddings_and_output_weights:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """[b, s] -> [b, s, v]."""
        return self.head(self.norm(self.layers(self.embedding(tokens))))


@st.composite
def models(draw: st.DrawFn) -> ModelOptions:
    heads = draw(st.sampled_from([1, 2, 4, 6]))
    return ModelOptions(
        num_layers=draw(st.integers(1, 3)),
        hidden_size=heads * 8,
        num_attention_heads=heads,
        num_query_groups=draw(st.sampled_from([size for size in (1, 2, 3) if heads % size == 0])),
        kv_channels=draw(st.sampled_from([None, 12])),
        ffn_hidden_size=draw(st.sampled_from([None, 40])),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        normalization=draw(st.sampled_from(["LayerNorm", "RMSNorm"])),
        position_embedding_type=draw(st.sampled_from(["learned_absolute", "rope", "alibi", "relative", "none"])),
        qk_layernorm=draw(st.booleans()),
        disable_bias_linear=draw(st.booleans()),
        add_qkv_bias=draw(st.booleans()),
        untie_embeddings_and_output_weights=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=60)
@given(models())
def test_parameters_are_those_of_a_plain_model(options: ModelOptions) -> None:
    model = PlainDecoder(options)
    count = decoder_parameters(options, padded_vocabulary_size=VOCABULARY, max_positions=LENGTH)
    assert count.total == sum(parameter.numel() for parameter in model.parameters())
    stack = [*model.layers.parameters(), *model.norm.parameters()]
    assert count.non_embedding == sum(parameter.numel() for parameter in stack)


@settings(deadline=None, max_examples=20)
@given(models())
def test_flops_are_what_torch_counts(options: ModelOptions) -> None:
    model = PlainDecoder(options)
    tokens = torch.randint(VOCABULARY, (2, LENGTH))
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    ours = decoder_flops_per_token(options, padded_vocabulary_size=VOCABULARY, seq_length=LENGTH, visible_fraction=1.0)
    assert ours * tokens.numel() == counter.get_total_flops()


def test_a_causal_mask_pays_for_the_scores_that_are_seen() -> None:
    options = ModelOptions(num_layers=1, hidden_size=8, num_attention_heads=1)
    seen = sum(query + 1 for query in range(LENGTH)) / LENGTH**2
    causal, given_fraction, nothing = (
        decoder_flops_per_token(options, padded_vocabulary_size=8, seq_length=LENGTH, visible_fraction=fraction)
        for fraction in (None, seen, 0.0)
    )
    assert causal == given_fraction == nothing + 3 * 2 * 2 * 8 * LENGTH * seen


def test_gpt3_is_a_314_zettaflop_run() -> None:
    # Brown et al. 2020, table D.1: 174.6 B parameters, 3.14e23 FLOPs for 300 B tokens (attention scores left out).
    options = ModelOptions(num_layers=96, hidden_size=12288, num_attention_heads=96)
    count = decoder_parameters(options, padded_vocabulary_size=50257, max_positions=2048)
    assert count.total == pytest.approx(174.6e9, rel=2e-3)
    flops = decoder_flops_per_token(options, padded_vocabulary_size=50257, seq_length=2048, visible_fraction=0.0)
    assert flops * 300e9 == pytest.approx(3.14e23, rel=5e-3)


def test_share_of_the_peak() -> None:
    throughput = Throughput(flops_per_token=6e9, peak_tflops=100.0)
    assert throughput.tflops_per_device(50_000.0, 4) == pytest.approx(75.0)
    assert throughput.mfu(75.0) == 0.75
    assert Throughput(flops_per_token=6e9).mfu(75.0) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA GB200", 2500.0),
        ("Intel(R) Xeon(R)", None),
    ],
)
def test_known_peaks(name: str, peak: float | None) -> None:
    assert peak_tflops_of(name) == peak
