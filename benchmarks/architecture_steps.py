"""Training steps of the architectures side by side on CPU, in one process and in turns.

    python -m benchmarks.architecture_steps --section prefix            prefix decoder against causal decoder
    python -m benchmarks.architecture_steps --section encoder_decoder   encoder-decoder against transformers' T5
    python -m benchmarks.architecture_steps --section targets           vocabulary head at targets against all positions

prefix: the same model of 8.5 million parameters, sequence 512, batch 4; half of each row is a prefix that is read both
ways. encoder_decoder: T5 1.1's layout, hidden 256, 4 + 4 layers, rows of 512 and 114 tokens, vocabulary 8192, batch 4,
span corruption without padding. targets: the causal decoder of the first section on rows of which one position in
fifteen has a loss, as in finetuning on prompts. float32, dropout 0, AdamW and clipping in every step.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable

import numpy as np
import torch
import transformers

from benchmarks.train_step import with_cpu_time
from benchmarks.training_steps import CLIP, LEARNING_RATE, interleave, median_ratio, step_of
from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.basics.draws import Draws
from megatron.cli.start_up import quiet_libraries
from megatron.data.collate import collate
from megatron.data.target_positions import with_head_at_targets
from megatron.device.device import Device, choose_device
from megatron.layout.grid import Grid
from megatron.loop.setup import ModelRecipe
from megatron.modeling.options import ModelOptions
from megatron.objectives.options import ObjectiveOptions
from megatron.objectives.registry import OBJECTIVES
from megatron.records.batch import Batch
from megatron.records.example import SequencePair
from megatron.records.special_tokens import SpecialTokens
from megatron.records.window import Window

VOCABULARY, BATCH, LENGTH = 8192, 4, 512
INPUTS, TARGETS = 512, 114
NUM_SENTINELS = 100
PROMPT_TARGETS = 34
DECODER = ModelOptions(num_layers=8, hidden_size=256, num_attention_heads=4, make_vocab_size_divisible_by=VOCABULARY)
T5 = ModelOptions(
    num_layers=4,
    hidden_size=256,
    num_attention_heads=4,
    ffn_hidden_size=1024,
    normalization="RMSNorm",
    activation="geglu_tanh",
    position_embedding_type="relative",
    disable_bias_linear=True,
    untie_embeddings_and_output_weights=True,
    make_vocab_size_divisible_by=VOCABULARY,
)


def main() -> None:
    """Measure one section and print its table; the first row is ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", choices=sorted(SECTIONS), default="prefix")
    parser.add_argument("--rounds", type=int, default=15, help="measured steps of each (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before them (default: %(default)s)")
    arguments = parser.parse_args()
    quiet_libraries()
    transformers.logging.set_verbosity_error()
    device = choose_device("cpu")
    from megatron.layout import grid as grids
    from megatron.layout.options import LayoutOptions

    grid = grids.initialise(LayoutOptions(), device)
    steps = SECTIONS[arguments.section](device, grid)
    cpu_seconds: dict[str, list[float]] = {name: [] for name in steps}
    timed = {name: with_cpu_time(step, cpu_seconds[name]) for name, step in steps.items()}
    seconds = interleave(timed, device, rounds=arguments.rounds, warm_up=arguments.warm_up)
    print_table(seconds, {name: times[arguments.warm_up :] for name, times in cpu_seconds.items()}, device)
    grids.shut_down()


def prefix_steps(device: Device, grid: Grid) -> dict[str, Callable[[], float]]:
    """The two decoders on the same tokens; half of each row carries no loss."""
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, LENGTH + 1), dtype=np.int32)
    rules = RowRules(seq_length=LENGTH, end_token=0)
    steps = {}
    for name in ("prefix_decoder", "causal_decoder"):
        architecture = ARCHITECTURES[name]()
        rows = [
            architecture.arrange([SequencePair(inputs=row[: LENGTH // 2], targets=row[LENGTH // 2 :])], rules)
            for row in tokens
        ]
        steps[name] = step_of(_recipe(name, DECODER, (LENGTH, LENGTH)), collate(rows), device, grid, torch.float32)
    return steps


def encoder_decoder_steps(device: Device, grid: Grid) -> dict[str, Callable[[], float]]:
    """Ours and transformers' T5 with both of its attention functions, on the same corrupted text."""
    architecture = ARCHITECTURES["encoder_decoder"]()
    rules = RowRules(seq_length=INPUTS, decoder_seq_length=TARGETS, end_token=1)
    special = SpecialTokens(end=1, pad=0, sentinels=tuple(range(VOCABULARY - 1, VOCABULARY - NUM_SENTINELS - 1, -1)))
    objective = OBJECTIVES["span_corruption"].build(ObjectiveOptions(), special, architecture.room(rules))
    generator = np.random.default_rng(0)
    rows = []
    for seed in range(BATCH):
        text = generator.integers(2, VOCABULARY - NUM_SENTINELS, objective.window_length, dtype=np.int32)
        rows.append(architecture.arrange(objective(Window(text, np.zeros(0, np.int32)), Draws(seed)), rules))
    batch = collate(rows)
    recipe = _recipe("encoder_decoder", T5, (INPUTS, TARGETS))
    steps = {"encoder_decoder": step_of(recipe, batch, device, grid, torch.float32)}
    for attention in ("sdpa", "eager"):
        steps[f"transformers {attention}"] = hugging_face_t5_step(batch, attention)
    return steps


def target_steps(device: Device, grid: Grid) -> dict[str, Callable[[], float]]:
    """The same decoder on the same rows, with the head at the positions that have a loss and at all of them."""
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, LENGTH + 1), dtype=np.int32)
    architecture = ARCHITECTURES["causal_decoder"]()
    rules = RowRules(seq_length=LENGTH, end_token=0)
    pairs = [SequencePair(inputs=row[:-PROMPT_TARGETS], targets=row[-PROMPT_TARGETS:]) for row in tokens]
    batch = collate([architecture.arrange([pair], rules) for pair in pairs])
    recipe = _recipe("causal_decoder", DECODER, (LENGTH, LENGTH))
    batches = {"head at targets": with_head_at_targets(batch), "head at all positions": batch}
    return {name: step_of(recipe, each, device, grid, torch.float32) for name, each in batches.items()}


def hugging_face_t5_step(batch: Batch, attention: str) -> Callable[[], float]:
    """The same step with T5ForConditionalGeneration and torch's fused AdamW."""
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=T5.hidden_size,
        d_kv=T5.head_size,
        d_ff=T5.ffn_size,
        num_layers=T5.encoder_layers,
        num_decoder_layers=T5.decoder_layers,
        num_heads=T5.num_attention_heads,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        initializer_factor=0.1,  # its own start has logits of the size of the hidden layer
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        use_cache=False,
        attn_implementation=attention,
    )
    model = transformers.T5ForConditionalGeneration(config).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    assert batch.encoder is not None
    inputs, tokens, labels = batch.encoder.tokens, batch.tokens, batch.labels

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = model(input_ids=inputs, decoder_input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return float(loss.detach())

    return step


def _recipe(architecture: str, model: ModelOptions, lengths: tuple[int, int]) -> ModelRecipe:
    return ModelRecipe(
        architecture=ARCHITECTURES[architecture](),
        model=model,
        vocabulary_size=VOCABULARY,
        max_positions=max(lengths),
        seed=1,
        lengths=lengths,
    )


SECTIONS = {"prefix": prefix_steps, "encoder_decoder": encoder_decoder_steps, "targets": target_steps}


def print_table(seconds: dict[str, list[float]], cpu_seconds: dict[str, list[float]], device: Device) -> None:
    """Medians, and how many times as fast the first row is."""
    ours = next(iter(seconds))
    print(
        f"{device.name}, float32, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(" " * 24 + "".join(f"{title:>11}" for title in ("median ms", "best ms", "CPU ms", "ours is", "by CPU")))
    for name, times in seconds.items():
        row = f"{name:24}{statistics.median(times) * 1e3:11.1f}{min(times) * 1e3:11.1f}"
        row += f"{statistics.median(cpu_seconds[name]) * 1e3:11.1f}"
        if name != ours:
            row += f"{median_ratio(seconds[ours], times):10.2f}x"
            row += f"{median_ratio(cpu_seconds[ours], cpu_seconds[name]):10.2f}x"
        print(row)


if __name__ == "__main__":
    main()
