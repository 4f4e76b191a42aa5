"""One training step: what it divides by, what decays, what the rate and the clipping do, what stops it."""

import contextlib
import copy
import math
import weakref

import pytest
import torch

from megatron.layout.initial_weights import global_names
from megatron.layout.options import LayoutOptions
from megatron.loop.options import OptimizerOptions
from megatron.loop.setup import compute_dtype, loss_unit, make_trainable
from megatron.loop.step import LossRule, Microbatches, train_step
from megatron.losses.token_cross_entropy import token_cross_entropy
from megatron.records.batch import Batch, Visibility
from tests.oracles.one_process_model import (
    DEVICE,
    VOCABULARY,
    batch_of,
    build_decoder,
    one_process_grid,
    random_sequences,
    recipe_of,
)

LENGTH = 16
MODEL = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "init_method_std": 0.1}
RECIPE = recipe_of(MODEL, max_positions=LENGTH)
VECTORS = ("bias", "layernorm.weight")


def trainable(*, recipe=RECIPE, microbatch_tokens=2 * LENGTH, layout=(), **options):
    options = OptimizerOptions(**{"lr": 1e-2, "weight_decay": 0.0, "clip_grad": 0.0, **options})
    config, chunk = build_decoder(recipe, dtype=compute_dtype(options))
    layout = LayoutOptions(**dict(layout))
    return make_trainable(config, [chunk], layout, options, microbatch_tokens=microbatch_tokens)


def step(model, batches, *, learning_rate=1e-2, z_loss_coeff=0.0, **settings):
    rule = LossRule(architecture=RECIPE.architecture, vocabulary_size=VOCABULARY, z_loss_coeff=z_loss_coeff)
    grid = one_process_grid()
    return train_step(model, batches, rule, grid, DEVICE, dropout_seed=1, learning_rate=learning_rate, **settings)


def weights(model):
    return {name: copy.deepcopy(value.detach()) for name, value in global_names(model.chunks[0].module)}


def uneven_batches():
    """Micro-batches with 32, 2 and 0 targets."""
    return [batch_of(random_sequences(2, LENGTH, seed=n), inputs=inputs) for n, inputs in enumerate((0, 16, 17))]


def joined(batches):
    columns = {name: torch.cat([getattr(b, name) for b in batches]) for name in ("tokens", "labels", "position_ids")}
    intervals = torch.cat([batch.visibility.intervals for batch in batches])
    mask = torch.cat([batch.loss_mask for batch in batches])
    return Batch(**columns, loss_mask=mask, visibility=Visibility(intervals, LENGTH, is_causal=True))


def plain_gradient_norm(batches, *, per_micro_batch):
    """Of the mean over all targets, or of the mean of the micro-batches' means, by autograd alone."""
    _, chunk = build_decoder(RECIPE)
    losses = [
        token_cross_entropy(chunk(batch), batch, one_process_grid(), vocabulary_size=VOCABULARY) for batch in batches
    ]
    if per_micro_batch:
        loss = sum(loss.total / loss.count.clamp(min=1) for loss in losses) / len(losses)
    else:
        loss = sum(loss.total for loss in losses) / sum(loss.count for loss in losses)
    gradients = torch.autograd.grad(loss, list(chunk.parameters()))
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


def test_every_target_of_a_step_weighs_the_same():
    batches = uneven_batches()
    result = step(trainable(), batches)
    assert result.loss_tokens == 34
    assert result.grad_norm == pytest.approx(plain_gradient_norm(batches, per_micro_batch=False), rel=1e-5)
    assert result.grad_norm != pytest.approx(plain_gradient_norm(batches, per_micro_batch=True), rel=1e-1)

    together = step(trainable(), [joined(batches)])
    assert together.losses["lm loss"] == pytest.approx(result.losses["lm loss"], rel=1e-6)
    assert together.grad_norm == pytest.approx(result.grad_norm, rel=1e-6)


def test_z_loss_is_trained_on_and_reported_beside_the_loss():
    plain, with_z = step(trainable(), uneven_batches()), step(trainable(), uneven_batches(), z_loss_coeff=0.1)
    assert list(plain.losses) == ["lm loss"] and list(with_z.losses) == ["lm loss", "z loss"]
    assert with_z.losses["lm loss"] == pytest.approx(plain.losses["lm loss"], rel=1e-6)
    _, chunk = build_decoder(RECIPE)
    squares, count = 0.0, 0
    for batch in uneven_batches():
        log_partition = chunk(batch).detach()[..., :VOCABULARY].double().logsumexp(-1).t()
        squares += float((log_partition.square() * batch.loss_mask).sum())
        count += int(batch.loss_mask.sum())
    assert with_z.losses["z loss"] == pytest.approx((0.1 * squares, count), rel=1e-5)
    assert with_z.grad_norm != pytest.approx(plain.grad_norm, rel=1e-2)


def test_micro_batches_change_nothing_but_memory():
    apart, together = trainable(), trainable()
    for _ in range(5):
        result = step(apart, uneven_batches())
        expected = step(together, [joined(uneven_batches())])
        assert result.losses["lm loss"] == pytest.approx(expected.losses["lm loss"], rel=1e-5)
        assert result.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)


def test_a_step_without_targets_moves_nothing():
    model = trainable()
    before = weights(model)
    result = step(model, [uneven_batches()[2]])
    assert (result.losses["lm loss"], result.grad_norm, result.nonfinite) == ((0.0, 0.0), 0.0, None)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())


@pytest.mark.parametrize("spare_embeddings", [False, True])
def test_what_decays(spare_embeddings):
    """Decay is decoupled: it takes lr x weight_decay of a weight on top of the same Adam step."""
    plain = trainable()
    decaying = trainable(weight_decay=0.5, no_weight_decay_on_embeddings=spare_embeddings)
    before = weights(plain)
    for model in (plain, decaying):
        step(model, uneven_batches())
    after = weights(decaying)
    for name, weight in weights(plain).items():
        spared = name.endswith(VECTORS) or (spare_embeddings and name.startswith("embedding"))
        expected = weight if spared else weight - 1e-2 * 0.5 * before[name]
        assert torch.allclose(after[name], expected, atol=1e-7), name
        assert spared or not torch.equal(after[name], weight), name


@pytest.mark.parametrize("learning_rate", [0.0, 1e-4, 3e-3])
def test_the_rate_of_the_step_is_applied(learning_rate):
    """The first step of Adam moves a weight by the rate, in the direction of its gradient's sign."""
    model = trainable(lr=1.0)
    before = weights(model)
    step(model, uneven_batches(), learning_rate=learning_rate)
    moved = torch.cat([(weight - before[name]).abs().flatten() for name, weight in weights(model).items()])
    assert float(moved.max()) == pytest.approx(learning_rate, rel=1e-3)
    assert float(moved.median()) == pytest.approx(learning_rate, rel=1e-2)


@pytest.mark.parametrize("clip", [0.0, 1e-3, 1e6])
def test_clipping_scales_the_whole_gradient(clip):
    model = trainable(clip_grad=clip, adam_beta1=0.9)
    result = step(model, uneven_batches())
    (optimizer,) = model.optimizer.chained_optimizers
    moments = [state["exp_avg"] for state in optimizer.optimizer.state.values()]
    taken = math.sqrt(sum(float(moment.double().square().sum()) for moment in moments)) / (1 - 0.9)
    assert result.grad_norm > 1e-2  # what is reported is the norm before clipping
    assert taken == pytest.approx(min(result.grad_norm, clip or math.inf), rel=1e-4)


def test_a_loss_that_is_not_finite_moves_nothing_and_is_named():
    model = trainable()
    step(model, uneven_batches())
    model.chunks[0].module.decoder.final_layernorm.weight.data[3] = float("inf")
    before = weights(model)
    result = step(model, uneven_batches())
    assert result.nonfinite == "lm loss" and not result.overflow
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())


def test_a_gradient_that_is_not_finite_is_named_by_its_parameter():
    model = trainable()
    before = weights(model)
    guilty = model.chunks[0].module.decoder.layers[1].mlp.linear_fc2.weight
    guilty.register_hook(lambda gradient: gradient * float("nan"))
    result = step(model, uneven_batches())
    assert result.nonfinite == "gradient of decoder.layers.1.mlp.linear_fc2.weight (rank 0)"
    assert math.isfinite(result.losses["lm loss"][0])
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())


def test_wishes_come_back_as_votes():
    assert step(trainable(), uneven_batches(), asks=lambda: [False, True, False]).votes == [False, True, False]


def test_a_wish_is_heard_in_the_step_that_it_falls_into():
    """Even when it comes with the last gradient."""
    model, wishes = trainable(), []
    model.chunks[0].module.embedding.word_embeddings.weight.register_hook(lambda gradient: wishes.append(True))
    assert step(model, uneven_batches(), asks=lambda: [bool(wishes)]).votes == [True]


class Counted:
    """Micro-batches that count how many of them are alive."""

    def __init__(self, count):
        self.count, self.most = count, 0
        self.alive = weakref.WeakSet()

    def __iter__(self):
        for number in range(self.count):
            batch = batch_of(random_sequences(2, LENGTH, seed=number))
            self.alive.add(batch)
            self.most = max(self.most, len(self.alive))
            yield batch
            del batch


def test_micro_batches_live_one_at_a_time():
    """The one that is computed, and the next one, which is made before the last name of it is gone."""
    counted = Counted(6)
    step(trainable(), Microbatches(counted, 6))
    assert counted.most <= 2 and len(counted.alive) == 0


def test_what_a_mask_is_expanded_to_goes_with_its_micro_batch():
    starts = [[0, 5], [0, 9]]
    batches = [
        batch_of(random_sequences(2, LENGTH, seed=n), document_starts=starts, reset_attention_mask=True)
        for n in range(3)
    ]
    before = set(vars(batches[0].visibility))
    step(trainable(), batches)
    for batch in batches:
        assert vars(batch.visibility).keys() == before


@pytest.mark.parametrize("tokens", [1, 64, 100, 1024])
def test_the_unit_of_a_float16_loss_is_a_power_of_two(tokens):
    unit = loss_unit(OptimizerOptions(fp16=True), tokens)
    assert math.log2(unit).is_integer() and 1 / (2 * tokens) < unit <= 1 / tokens
    assert loss_unit(OptimizerOptions(bf16=True), tokens) == loss_unit(OptimizerOptions(), tokens) == 1.0


def test_float16_begins_with_the_first_step_and_follows_float32():
    """With the loss scale that is the default, and no step skipped."""
    sequences = [random_sequences(4, 64, seed=n) % 20 + 1 for n in range(8)]
    recipe = recipe_of({**MODEL, "hidden_size": 64}, max_positions=64)
    half = trainable(recipe=recipe, microbatch_tokens=4 * 64, fp16=True)
    single = trainable(recipe=recipe)
    for number in range(30):
        batches = [batch_of(sequences[number % 8]), batch_of(sequences[(number + 1) % 8])]
        result = step(half, batches, learning_rate=1e-3)
        expected = step(single, batches, learning_rate=1e-3)
        assert not result.overflow and result.nonfinite is None and result.loss_scale == 2.0**16
        assert result.losses["lm loss"][0] == pytest.approx(expected.losses["lm loss"][0], rel=2e-3)
        assert result.grad_norm == pytest.approx(expected.grad_norm, rel=2e-2)


@pytest.mark.parametrize("fault", [None, ZeroDivisionError])
def test_parameters_are_gathered_layer_by_layer_again(fault):
    model = trainable(layout={"overlap_grad_reduce": True, "overlap_param_gather": True})
    (chunk,) = model.chunks
    with contextlib.suppress(ZeroDivisionError), model.parameters_gathered():
        assert not chunk.remove_forward_pre_hook_handles
        if fault:
            raise fault
    assert chunk.remove_forward_pre_hook_handles


def test_dropout_is_a_function_of_the_seed():
    recipe = recipe_of({**MODEL, "hidden_dropout": 0.3, "attention_dropout": 0.2}, max_positions=LENGTH)
    losses = []
    for seed in (1, 1, 2):
        options = OptimizerOptions(lr=1e-2)
        config, chunk = build_decoder(recipe)
        model = make_trainable(config, [chunk], LayoutOptions(), options)
        torch.rand(17 * len(losses))  # what was drawn before does not matter
        rule = LossRule(architecture=recipe.architecture, vocabulary_size=VOCABULARY)
        result = train_step(
            model, uneven_batches(), rule, one_process_grid(), DEVICE, dropout_seed=seed, learning_rate=1e-2
        )
        losses.append(result.losses["lm loss"][0])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("options", "dtype"), [({}, "float32"), ({"bf16": True}, "bfloat16"), ({"fp16": True}, "float16")]
)
def test_small_steps_are_kept_in_float32(options, dtype):
    """bfloat16 weights alone would round these steps away."""
    model = trainable(**options)
    assert {str(parameter.dtype) for parameter in model.chunks[0].parameters()} == {f"torch.{dtype}"}
    (inner,) = model.optimizer.chained_optimizers
    masters = [parameter for group in inner.optimizer.param_groups for parameter in group["params"]]
    assert {parameter.dtype for parameter in masters} == {torch.float32}
    for _ in range(20):
        step(model, uneven_batches(), learning_rate=1e-5)
    moved = max(
        float((new - old).abs().max())
        for new, old in zip([p.detach() for p in masters], [p.detach() for p in masters_of_fresh(options)], strict=True)
    )
    assert moved > 5e-5


def masters_of_fresh(options):
    (inner,) = trainable(**options).optimizer.chained_optimizers
    return [parameter for group in inner.optimizer.param_groups for parameter in group["params"]]


@pytest.mark.parametrize(
    "precision", [{"bf16": True}, {"fp16": True, "initial_loss_scale": 256.0}], ids=["bf16", "fp16"]
)
def test_adafactor_steps_master_weights_in_float32(precision):
    """A step of a 16-bit model moves its master weights by less than its weights can show, and none is lost."""
    model = trainable(optimizer="adafactor", weight_decay=OptimizerOptions().weight_decay, **precision)
    optimizer = model.inner_optimizer
    before = {parameter: master.clone() for parameter, master in optimizer.masters.items()}
    for _ in range(3):
        step(model, uneven_batches(), learning_rate=1e-4)
    moved = [not torch.equal(master, before[parameter]) for parameter, master in optimizer.masters.items()]
    assert all(moved)
    for parameter, master in optimizer.masters.items():
        assert master.dtype == torch.float32
        assert torch.equal(parameter, master.to(parameter.dtype))
        change = (master - before[parameter]).norm() / before[parameter].norm().clamp(min=1e-3 * master.numel() ** 0.5)
        assert 1e-5 < float(change) < 4e-4  # three steps of 1e-4 of its size, in about the same direction


def test_adafactor_sees_gradients_without_loss_scale():
    """Its update hides a scale that was left in; its moments, squared gradients after one step, do not."""
    same = {"optimizer": "adafactor", "weight_decay": OptimizerOptions().weight_decay}
    plain, scaled = trainable(**same), trainable(**same, fp16=True, initial_loss_scale=256.0)
    moments = []
    for model in (plain, scaled):
        step(model, uneven_batches())
        optimizer = model.inner_optimizer
        states = [optimizer.states_of(parameter)["exp_avg_sq"].sum() for parameter in optimizer.masters]
        moments.append(torch.stack(states))
    assert moments[0].min() > 0
    torch.testing.assert_close(moments[1], moments[0], rtol=0.05, atol=0.0)
