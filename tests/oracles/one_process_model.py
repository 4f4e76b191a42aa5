"""The real decoder in the process of the test: a world of one, on CPU."""

import atexit

from megatron.device.device import choose_device

DEVICE = choose_device("cpu")  # must come before megatron.core is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed  # noqa: E402

from megatron.architectures.causal_decoder import CausalDecoder  # noqa: E402
from megatron.architectures.registry import ARCHITECTURES  # noqa: E402
from megatron.architectures.row_rules import RowRules  # noqa: E402
from megatron.attention.registry import choose_backend  # noqa: E402
from megatron.layout import grid as grids  # noqa: E402
from megatron.layout.options import LayoutOptions  # noqa: E402
from megatron.loop.setup import ModelRecipe, build_chunks  # noqa: E402
from megatron.modeling.options import ModelOptions  # noqa: E402
from megatron.records.batch import Batch, Visibility  # noqa: E402
from megatron.records.example import SequencePair  # noqa: E402

VOCABULARY = 100


def one_process_grid():
    """The grid of this process, made when first asked for."""
    if dist.is_initialized():
        return grids.current()
    atexit.register(grids.shut_down)
    grid = grids.initialise(LayoutOptions(), DEVICE)
    model_parallel_cuda_manual_seed(1)
    return grid


def recipe_of(
    model, *, max_positions, seed=1, vocabulary_size=VOCABULARY, architecture="causal_decoder", lengths=(1, 1)
):
    return ModelRecipe(
        architecture=ARCHITECTURES[architecture](),
        model=ModelOptions(**model),
        vocabulary_size=vocabulary_size,
        max_positions=max_positions,
        seed=seed,
        lengths=lengths,
    )


def build_decoder(recipe, *, backend="sdpa", dtype=torch.float32, attend=None):
    """(TransformerConfig, Decoder with fresh weights) of a ModelRecipe; `attend` stands in for the backend."""
    attend = attend or choose_backend(backend)[1]
    config, (chunk,) = build_chunks(recipe, LayoutOptions(), one_process_grid(), DEVICE, dtype, attend)
    return config, chunk


def batch_of(sequences, *, document_starts=None, inputs=0, end_token=0, **rules):
    """The batch that the causal decoder makes of token sequences int [b, s + 1]; the first `inputs` carry no loss."""
    sequences = np.asarray(sequences, np.int32)
    starts = document_starts or [[] for _ in sequences]
    row_rules = RowRules(seq_length=sequences.shape[1] - 1, end_token=end_token, **rules)
    rows = [
        CausalDecoder().arrange(
            [SequencePair(sequence[:inputs], sequence[inputs:], np.asarray(own, np.int32))], row_rules
        )
        for sequence, own in zip(sequences, starts, strict=True)
    ]
    return Batch(
        **{
            name: torch.from_numpy(np.stack([getattr(row, name) for row in rows])).long()
            for name in ("tokens", "labels", "position_ids")
        },
        loss_mask=torch.from_numpy(np.stack([row.loss_mask for row in rows])),
        visibility=Visibility(
            torch.from_numpy(np.stack([row.intervals for row in rows])),
            row_rules.seq_length,
            is_causal=not row_rules.reset_attention_mask,
        ),
    )


def random_sequences(batch, length, *, seed=0, vocabulary_size=VOCABULARY):
    """int32 [b, length + 1] without token 0."""
    return np.random.default_rng(seed).integers(1, vocabulary_size, (batch, length + 1), dtype=np.int32)
