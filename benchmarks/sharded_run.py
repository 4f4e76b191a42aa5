"""A run folder with a checkpoint of random weights, in the pieces that TP 2, PP 2 writes, without training a model."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu.toy_corpus import write_vocabulary
from megatron.architectures.weights import Weight, stage_weights
from megatron.checkpoint import folders
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.manifest import Manifest, Piece, TensorEntry
from megatron.checkpoint.options import CheckpointOptions
from megatron.checkpoint.shards import StagedShard, write_shard
from megatron.cli.described_run import describe_run
from megatron.cli.run_config import RunConfig
from megatron.cli.run_record import tokenizer_record, write_run_record
from megatron.data.options import DataOptions
from megatron.layout.options import LayoutOptions
from megatron.loop.options import BatchOptions, LoggingOptions, OptimizerOptions
from megatron.modeling.options import ModelOptions
from megatron.objectives.options import ObjectiveOptions
from megatron.tokenization.tokenizer import load_tokenizer

TENSOR_PARALLEL, STAGES = 2, 2
ITERATION, LENGTH = 100, 512
PATTERN = 1 << 20  # random numbers that the weights repeat


def causal_decoder(bytes_of_weights: int) -> tuple[ModelOptions, int]:
    """(model, words) of about so many bytes in float32: Llama's shape, an untied head, 2 layers at least."""
    hidden = next(width for width in (2048, 1024, 512, 256, 64) if bytes_of_weights > 400 * width**2 or width == 64)
    words = 16 * hidden
    in_a_layer = 4 * (4 * hidden**2 + 3 * hidden * 11 * hidden // 4)
    layers = max(2, round((bytes_of_weights - 8 * words * hidden) / in_a_layer))
    return _llama(hidden, layers, 11 * hidden // 4), words


def one_table(bytes_of_weights: int) -> tuple[ModelOptions, int]:
    """(model, words) where the table of words, which is the head as well, is nearly everything."""
    hidden = next(width for width in (4096, 1024, 64) if bytes_of_weights > 1000 * width**1.5 or width == 64)
    return _llama(hidden, 2, 64, is_tied=True), max(1, bytes_of_weights // (4096 * hidden)) * 1024


def turned(bytes_of_weights: int) -> tuple[ModelOptions, int]:
    """(model, words) of about so many bytes in float32: GPT-2's shape, whose folders hold most matrices transposed."""
    hidden = next(width for width in (2048, 1024, 512, 256, 64) if bytes_of_weights > 400 * width**2 or width == 64)
    words = 16 * hidden
    layers = max(2, round((bytes_of_weights / 4 - words * hidden) / (12 * hidden**2)))
    model = ModelOptions(
        num_layers=layers, hidden_size=hidden, num_attention_heads=hidden // 32, max_position_embeddings=LENGTH
    )
    return model, words


def make_run(folder: Path, model: ModelOptions, words: int) -> Path:
    """Write the run folder and its tokenizer beside it; the folder of the checkpoint."""
    folder.mkdir()
    vocabulary = write_vocabulary(folder.with_name(f"{folder.name}_tokenizer"), words - 1)
    tokenizer = load_tokenizer("HuggingFaceTokenizer", str(vocabulary))
    config = RunConfig(
        architecture="causal_decoder",
        objective="full_lm",
        model=model,
        layout=LayoutOptions(tensor_model_parallel_size=TENSOR_PARALLEL, pipeline_model_parallel_size=STAGES),
        batch=BatchOptions(),
        optimizer=OptimizerOptions(),
        objective_options=ObjectiveOptions(),
        data=DataOptions(seq_length=LENGTH, tokenizer_type=tokenizer.tokenizer_type, tokenizer_model=tokenizer.source),
        checkpoint=CheckpointOptions(save=str(folder)),
        logging=LoggingOptions(),
    )
    shape = describe_run(config, tokenizer).shape
    pieces = [piece for weight in stage_weights(shape, shape.whole()) for piece in _pieces(weight, model)]
    contents = Contents(
        progress=Progress(iteration=ITERATION),
        run=config.as_dict(),
        tokenizer=tokenizer_record(tokenizer),
        lineage=[],
        optimizer={"step": ITERATION, "grad_scaler": None},
    )
    checkpoint = _write(folder, pieces, contents)
    write_run_record(folder, config, tokenizer, {"iteration": 0})
    return checkpoint


def _llama(hidden: int, layers: int, inner: int, *, is_tied: bool = False) -> ModelOptions:
    return ModelOptions(
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=2 if is_tied else hidden // 32,
        kv_channels=16 if is_tied else None,
        ffn_hidden_size=inner,
        max_position_embeddings=LENGTH,
        normalization="RMSNorm",
        activation="swiglu",
        position_embedding_type="rope",
        disable_bias_linear=True,
        untie_embeddings_and_output_weights=not is_tied,
    )


def _pieces(weight: Weight, model: ModelOptions) -> Iterator[tuple[str, TensorEntry]]:
    """(name, entry of one piece) for each piece of a weight, in the file of its owner."""
    number = weight.name.split(".layers.")[-1].split(".")[0]
    is_late = int(number) >= model.num_layers // 2 if number.isdecimal() else "embedding" not in weight.name
    axis = 0 if weight.is_cut_along_rows else 1
    # Both halves of a gated projection are cut, so that a rank has its part of each.
    cuts = TENSOR_PARALLEL * (2 if model.is_gated and "linear_fc1" in weight.name else 1) if weight.is_cut else 1
    shape = tuple(length // cuts if place == axis else length for place, length in enumerate(weight.shape))
    for cut in range(cuts):
        offset = tuple(cut * length if place == axis else 0 for place, length in enumerate(shape))
        name = f"{weight.name}@{','.join(map(str, offset))}"
        rank = TENSOR_PARALLEL * is_late + cut % TENSOR_PARALLEL
        piece = Piece(f"shard_{rank:05d}.safetensors", name, offset, shape, crc32=0)
        yield weight.name, TensorEntry("float32", weight.shape, (piece,))


def _write(run_folder: Path, pieces: list[tuple[str, TensorEntry]], contents: Contents) -> Path:
    """The checkpoint, a file after the other, by the functions that a run saves with."""
    folder = folders.unfinished_folder(run_folder, ITERATION)
    folder.mkdir()
    pattern = torch.randn(PATTERN, generator=torch.Generator().manual_seed(0))
    tensors: dict[str, TensorEntry] = {}
    files: dict[str, int] = {}
    for file in sorted({entry.pieces[0].file for _, entry in pieces}):
        own = [
            (name, entry, _numbers(pattern, entry.pieces[0])) for name, entry in pieces if entry.pieces[0].file == file
        ]
        written, sizes = write_shard(StagedShard(own), folder, file)
        files |= sizes
        for name, entry in written.items():
            before = tensors[name].pieces if name in tensors else ()
            tensors[name] = TensorEntry(entry.dtype, entry.shape, (*before, *entry.pieces))
    Manifest(tensors, files, contents).write(folder)
    return folders.publish(run_folder, ITERATION)


def _numbers(pattern: Tensor, piece: Piece) -> Tensor:
    """The pattern over and over, from a place of its own: pieces that are mixed up differ."""
    size = torch.Size(piece.shape).numel()
    turned = pattern.roll(zlib.crc32(piece.name.encode()))
    return turned.repeat(-(-size // PATTERN))[:size].reshape(piece.shape).clone()
