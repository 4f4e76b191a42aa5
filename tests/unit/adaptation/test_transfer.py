"""Checkpoints of real models, read as other models by one process."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from megatron.adaptation.options import AdaptationOptions
from megatron.adaptation.plan import WORD_TABLE, make_plan
from megatron.adaptation.reader import Vocabularies
from megatron.adaptation.transfer import Transfer, adapt_into
from megatron.architectures.prefix_decoder import PrefixDecoder
from megatron.architectures.row_rules import RowRules
from megatron.basics.errors import UserError
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.folders import checkpoint_folder
from megatron.checkpoint.options import CheckpointOptions
from megatron.checkpoint.state import scalar_optimizer_state
from megatron.layout.initial_weights import global_names
from megatron.layout.options import LayoutOptions
from megatron.loop.options import OptimizerOptions
from megatron.loop.replicated_optimizer import ReplicatedOptimizer
from megatron.loop.saving import Saver
from megatron.loop.setup import TrainableModel, make_trainable
from megatron.modeling.options import ModelOptions
from megatron.records.batch import Visibility
from megatron.records.example import SequencePair
from tests.oracles.one_process_model import batch_of, build_decoder, one_process_grid, random_sequences, recipe_of

SHAPE = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "num_query_groups": 2, "activation": "swiglu"}
LENGTH = 12


def trainable(
    architecture: str, *, seed: int, vocabulary_size: int = 100, optimizer: str = "adam", **model: object
) -> TrainableModel:
    recipe = recipe_of(
        {**SHAPE, **model},
        max_positions=LENGTH,
        seed=seed,
        vocabulary_size=vocabulary_size,
        architecture=architecture,
        lengths=(LENGTH, LENGTH),
    )
    config, chunk = build_decoder(recipe, backend="fused_softmax")
    return make_trainable(config, [chunk], LayoutOptions(), OptimizerOptions(optimizer=optimizer))


def weights_of(model: TrainableModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in global_names(model.chunks[0].module)}


def moments_of(model: TrainableModel) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    found = {}
    for name, weight in global_names(model.chunks[0].module):
        states = model.inner_optimizer._get_main_param_and_optimizer_states(weight)
        found[name] = (states["exp_avg"].clone(), states["exp_avg_sq"].clone())
    return found


def states_of(model: TrainableModel, weight: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    inner = model.inner_optimizer
    if isinstance(inner, ReplicatedOptimizer):
        return inner.states_of(weight)
    return inner._get_main_param_and_optimizer_states(weight)


def saved(model: TrainableModel, folder: Path) -> Path:
    """A checkpoint of `model` with moments that are all different."""
    for name, weight in global_names(model.chunks[0].module):
        generator = torch.Generator().manual_seed(len(name))
        for state, values in states_of(model, weight).items():
            if state == "exp_avg":
                values.normal_(generator=generator)
            elif state.startswith("exp_avg_sq"):
                values.uniform_(generator=generator)
    for group in model.inner_optimizer.optimizer.param_groups:
        group["step"] = 7
    contents = Contents(
        progress=Progress(iteration=7),
        run={},
        tokenizer={},
        lineage=[],
        optimizer=scalar_optimizer_state(model.inner_optimizer),
    )
    folder.mkdir(exist_ok=True)
    options = CheckpointOptions(save=str(folder))
    Saver(options, folder, model, one_process_grid(), print).save(contents, wait=True)
    return checkpoint_folder(folder, 7)


def adapt(
    folder: Path,
    target: TrainableModel,
    source: str,
    options: AdaptationOptions,
    *,
    vocabularies: tuple[int, int] = (100, 100),
    **model: object,
) -> None:
    shape = ModelOptions(**{**SHAPE, **model})
    transfer = Transfer(
        folder=folder,
        plan=make_plan(source, options, shape, shape),
        vocabularies=Vocabularies(*vocabularies),
        keeps_optimizer=options.optimizer_state == "keep",
    )
    adapt_into(transfer, [chunk.module for chunk in target.chunks], target.inner_optimizer, one_process_grid())


@pytest.mark.parametrize("kind", ["learned_absolute", "rope", "relative", "alibi"])
def test_a_prefix_decoder_without_prefix_gives_the_causal_decoders_logits(kind: str, tmp_path: Path) -> None:
    causal = trainable("causal_decoder", seed=1, position_embedding_type=kind)
    folder = saved(causal, tmp_path / "run")
    prefix = trainable("prefix_decoder", seed=2, position_embedding_type=kind)
    sequences = random_sequences(2, LENGTH)
    batch = batch_of(sequences)
    rows = [
        PrefixDecoder().arrange([SequencePair(sequence[:0], sequence)], RowRules(seq_length=LENGTH, end_token=0))
        for sequence in sequences
    ]
    seen = torch.stack([torch.from_numpy(row.intervals) for row in rows])
    of_prefix = replace(batch, visibility=Visibility(seen, LENGTH, is_causal=False))
    expected = causal.chunks[0].module(batch)
    assert not torch.equal(prefix.chunks[0].module(of_prefix), expected)
    options = AdaptationOptions(to="prefix_decoder")
    adapt(folder, prefix, "causal_decoder", options, position_embedding_type=kind)
    assert torch.equal(prefix.chunks[0].module(of_prefix), expected)


def test_moments_and_step_come_along_or_not(tmp_path: Path) -> None:
    prefix = trainable("prefix_decoder", seed=1, vocabulary_size=128)
    folder = saved(prefix, tmp_path / "run")
    kept, fresh = (trainable("causal_decoder", seed=2, vocabulary_size=128) for _ in range(2))
    adapt(folder, kept, "prefix_decoder", AdaptationOptions(to="causal_decoder"), vocabularies=(128, 128))
    options = AdaptationOptions(to="causal_decoder", optimizer_state="fresh")
    adapt(folder, fresh, "prefix_decoder", options, vocabularies=(128, 128))
    before, after = moments_of(prefix), moments_of(kept)
    assert before.keys() == after.keys()
    for name, moments in before.items():
        assert all(map(torch.equal, moments, after[name])), name
    assert all(not moment.any() for moments in moments_of(fresh).values() for moment in moments)
    assert scalar_optimizer_state(kept.inner_optimizer)["step"] == 7
    assert scalar_optimizer_state(fresh.inner_optimizer)["step"] == 0
    for name, weight in weights_of(prefix).items():
        assert torch.equal(weight, weights_of(kept)[name]) and torch.equal(weight, weights_of(fresh)[name])


def test_cross_attention_of_an_encoder_decoder_begins_as_self_attention(tmp_path: Path) -> None:
    causal = trainable("causal_decoder", seed=1)
    folder = saved(causal, tmp_path / "run")
    target = trainable("encoder_decoder", seed=2)
    adapt(folder, target, "causal_decoder", AdaptationOptions(to="encoder_decoder"))
    before, after = weights_of(causal), weights_of(target)
    for number in range(2):
        stacked = before[f"decoder.layers.{number}.self_attention.linear_qkv.weight"].view(2, 4, 8, 32)
        layer = f"decoder.layers.{number}.cross_attention"
        assert torch.equal(after[f"{layer}.linear_q.weight"].view(2, 2, 8, 32), stacked[:, :2])
        assert torch.equal(after[f"{layer}.linear_kv.weight"].view(2, 2, 8, 32), stacked[:, 2:])
        for stack in ("encoder", "decoder"):
            gate_and_up = f"layers.{number}.mlp.linear_fc1.weight"
            assert torch.equal(after[f"{stack}.{gate_and_up}"], before[f"decoder.{gate_and_up}"])


def test_drawn_cross_attention_is_that_of_a_fresh_model(tmp_path: Path) -> None:
    folder = saved(trainable("causal_decoder", seed=1), tmp_path / "run")
    target = trainable("encoder_decoder", seed=2)
    fresh = weights_of(target)
    adapt(folder, target, "causal_decoder", AdaptationOptions(to="encoder_decoder", cross_attention="drawn"))
    for name, weight in weights_of(target).items():
        matrix = weight.dim() > 1  # fresh vectors are ones and zeros everywhere
        assert not matrix or torch.equal(weight, fresh[name]) == ("cross_attention" in name), name


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_a_decoder_takes_one_stack_of_an_encoder_decoder(stack: str, tmp_path: Path) -> None:
    both = trainable("encoder_decoder", seed=1, position_embedding_type="relative")
    folder = saved(both, tmp_path / "run")
    target = trainable("causal_decoder", seed=2, position_embedding_type="relative")
    options = AdaptationOptions(to="causal_decoder", from_stack=stack)
    adapt(folder, target, "encoder_decoder", options, position_embedding_type="relative")
    before, after = weights_of(both), weights_of(target)
    for name, weight in after.items():
        if "relative_bias" not in name:
            assert torch.equal(weight, before[name.replace("decoder.", f"{stack}.")]), name
    tables = [weight for name, weight in after.items() if "relative_bias" in name]
    assert len(tables) == 2 and torch.equal(*tables)
    assert torch.equal(tables[0], before["decoder.relative_bias.weight"]) == (stack == "decoder")


def test_added_tokens_begin_near_the_mean_and_none_like_another(tmp_path: Path) -> None:
    source = trainable("causal_decoder", seed=1)
    folder = saved(source, tmp_path / "run")
    grown = {"vocabulary_size": 140}  # 100 words fill 128 rows with padding, 140 fill 256
    target = trainable("prefix_decoder", seed=2, **grown)
    drawn = weights_of(target)[WORD_TABLE]
    adapt(folder, target, "causal_decoder", AdaptationOptions(to="prefix_decoder"), vocabularies=(100, 140))
    before, after = weights_of(source)[WORD_TABLE], weights_of(target)[WORD_TABLE]
    assert torch.equal(after[:100], before[:100])
    assert torch.equal(after[100:140], drawn[100:140] + before[:100].mean(dim=0))
    assert not after[140:].any()
    moment = moments_of(target)[WORD_TABLE][0].view_as(after)
    assert moment[:100].any() and not moment[100:].any()


@pytest.mark.parametrize(("hidden_size", "state"), [(128, "exp_avg_sq_row"), (32, "exp_avg_sq")])
def test_added_tokens_begin_with_the_mean_of_adafactors_second_moments(
    hidden_size: int, state: str, tmp_path: Path
) -> None:
    """The step count stays: rows of zeros would take a first step that is step^0.4 times too large."""
    kind = {"optimizer": "adafactor", "hidden_size": hidden_size}
    source = trainable("causal_decoder", seed=1, vocabulary_size=130, **kind)
    folder = saved(source, tmp_path / "run")
    target = trainable("prefix_decoder", seed=2, vocabulary_size=300, **kind)
    options = AdaptationOptions(to="prefix_decoder")
    adapt(folder, target, "causal_decoder", options, vocabularies=(130, 300), hidden_size=hidden_size)
    before, after = (
        states_of(model, dict(global_names(model.chunks[0].module))[WORD_TABLE])[state] for model in (source, target)
    )
    assert len(before) == 256 and len(after) == 384
    assert torch.equal(after[:130], before[:130])
    torch.testing.assert_close(after[130:300], before[:130].mean(dim=0).expand(after[130:300].shape))
    assert not after[300:].any()


def test_a_damaged_tensor_is_one_sentence(tmp_path: Path) -> None:
    folder = saved(trainable("causal_decoder", seed=1), tmp_path / "run")
    (shard,) = folder.glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged.*--load-iteration"):
        adapt(folder, trainable("prefix_decoder", seed=2), "causal_decoder", AdaptationOptions(to="prefix_decoder"))
