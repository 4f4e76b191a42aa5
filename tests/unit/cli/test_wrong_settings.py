"""Wrong pretraining settings: each answered by a sentence that names the flag and a setting that would do.

The rows are written by hand; for every flag there are in addition its misspelling, its missing value and a wrong type.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron.basics.errors import UserError
from megatron.basics.option import Options, flag_of
from megatron.cli.run_config import SECTIONS
from megatron.cli.values import FieldType, field_types
from megatron.data.options import DataOptions
from megatron.data.preprocess_options import TextInputOptions

FaultsOf = Callable[..., list[str]]
ALL_FLAGS: dict[str, FieldType] = {
    flag_of(name): wanted for options in SECTIONS.values() for name, wanted in field_types(options).items()
}

# (flags beside the sound ones, processes, part of the one sentence that answers them)
WRONG = [
    # the model by itself
    ("--num-layers 0", 1, "--num-layers 0 is too small; use 1 or more."),
    ("--num-layers -3", 1, "--num-layers -3 is too small"),
    ("--hidden-size 0", 1, "--hidden-size 0 is too small"),
    ("--hidden-size 100", 1, "not divisible by --num-attention-heads 12; use 10 heads or set --kv-channels"),
    ("--hidden-size 1000000007 --num-attention-heads 50000", 1, "use 1 heads"),
    ("--num-attention-heads 0", 1, "--num-attention-heads 0"),
    ("--num-attention-heads 7", 1, "use 6 heads"),
    ("--num-query-groups 5", 1, "not divisible by --num-query-groups 5; use 4 groups"),
    ("--num-query-groups 24", 1, "use 12 groups"),
    ("--ffn-hidden-size 0", 1, "--ffn-hidden-size 0"),
    ("--kv-channels 0", 1, "--kv-channels 0"),
    ("--kv-channels 7 --position-embedding-type rope", 1, "odd width"),
    ("--rotary-percent 0", 1, "--rotary-percent 0.0 is too small"),
    ("--rotary-percent 1.5", 1, "--rotary-percent 1.5 is too large; use 1.0 or less"),
    ("--rotary-base 0", 1, "--rotary-base 0"),
    ("--position-embedding-type rotary", 1, "Known: learned_absolute, rope"),
    ("--position-embedding-type learned", 1, "did you mean learned_absolute?"),
    ("--relative-attention-num-buckets 3", 1, "--relative-attention-num-buckets 3 is too small; use 4 or more"),
    (
        "--position-embedding-type relative --relative-attention-max-distance 16",
        1,
        "must be more than half of --relative-attention-num-buckets 32",
    ),
    ("--relative-attention-max-distance 256", 1, "has no effect without --position-embedding-type relative"),
    ("--relative-attention-num-buckets 64", 1, "has no effect without --position-embedding-type relative"),
    ("--rotary-base 500000", 1, "--rotary-base has no effect without --position-embedding-type rope; leave it out."),
    ("--rotary-percent 0.5", 1, "--rotary-percent has no effect without --position-embedding-type rope"),
    (
        "--position-embedding-type rope --max-position-embeddings 16",
        1,
        "--max-position-embeddings 16 is less than --seq-length",
    ),
    ("--start-token begin", 1, "--start-token has no effect without --begin-with-start-token; leave it out."),
    ("--pack-documents --reset-attention-mask", 1, "--reset-attention-mask has no effect with --pack-documents"),
    ("--pack-documents --reset-position-ids", 1, "--reset-position-ids has no effect with --pack-documents"),
    ("--pack-documents --eod-mask-loss", 1, "--eod-mask-loss has no effect with --pack-documents"),
    ("--position-embedding-type alibi --reset-position-ids", 1, "--reset-position-ids has no effect with"),
    ("--normalization layernorm", 1, "did you mean LayerNorm?"),
    ("--normalization rms", 1, "Known: LayerNorm, RMSNorm"),
    ("--norm-epsilon 0", 1, "--norm-epsilon 0.0 is too small; use more than 0.0"),
    ("--norm-epsilon nan", 1, "must be a finite number"),
    ("--activation swigul", 1, "did you mean swiglu?"),
    ("--activation silu", 1, "--activation silu is not known"),
    ("--hidden-dropout 1.0", 1, "--hidden-dropout 1.0 is too large; use 0.99 or less"),
    ("--hidden-dropout -0.1", 1, "--hidden-dropout -0.1 is too small"),
    ("--attention-dropout 2", 1, "--attention-dropout 2.0 is too large"),
    ("--attention-backend flash", 1, "--attention-backend flash is not known"),
    ("--init-method-std 0", 1, "--init-method-std 0.0"),
    ("--make-vocab-size-divisible-by 0", 1, "--make-vocab-size-divisible-by 0"),
    ("--max-position-embeddings 512", 1, "less than --seq-length 1024; use 1024"),
    # the layout
    ("--tensor-model-parallel-size 0", 1, "--tensor-model-parallel-size 0"),
    ("--pipeline-model-parallel-size 0", 1, "--pipeline-model-parallel-size 0"),
    ("--tensor-model-parallel-size 2", 1, "start a multiple of 2 processes, e.g. 2"),
    ("--tensor-model-parallel-size 2 --pipeline-model-parallel-size 2", 6, "start a multiple of 4 processes, e.g. 8"),
    ("--pipeline-model-parallel-size 5", 5, "cannot split 12 layers evenly; use 4"),
    ("--pipeline-model-parallel-size 24", 24, "cannot split 12 layers evenly; use 12"),
    ("--tensor-model-parallel-size 8", 8, "--num-attention-heads 12 cannot be split"),
    ("--tensor-model-parallel-size 4 --num-query-groups 2", 4, "--num-query-groups 2 cannot be split"),
    ("--tensor-model-parallel-size 2 --ffn-hidden-size 1001", 2, "--ffn-hidden-size 1001 cannot be split"),
    ("--tensor-model-parallel-size 2 --make-vocab-size-divisible-by 3", 2, "use 6"),
    ("--tensor-model-parallel-size 2 --sequence-parallel --seq-length 1023", 2, "by --sequence-parallel; use 1022"),
    ("--sequence-parallel", 1, "--sequence-parallel needs --tensor-model-parallel-size 2 or more"),
    ("--num-virtual-stages-per-pipeline-rank 2", 1, "needs --pipeline-model-parallel-size 2 or more"),
    ("--num-virtual-stages-per-pipeline-rank 1", 1, "--num-virtual-stages-per-pipeline-rank 1 is too small"),
    (
        "--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 4 --global-batch-size 2",
        2,
        "cannot split the 6 layers of a pipeline rank evenly; use 3",
    ),
    (
        "--pipeline-model-parallel-size 4 --num-virtual-stages-per-pipeline-rank 2 --num-layers 4 "
        "--global-batch-size 4",
        4,
        "leave it out",
    ),
    (
        "--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2 --global-batch-size 3",
        2,
        "use --global-batch-size 4",
    ),
    ("--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2", 2, "use --global-batch-size 2"),
    (
        "--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2 --global-batch-size 8 "
        "--rampup-batch-size 2 1 100",
        2,
        "a ramp of multiples of 2",
    ),
    ("--decoder-first-pipeline-num-layers 3", 1, "need --pipeline-model-parallel-size 2 or more"),
    ("--pipeline-model-parallel-size 2 --decoder-first-pipeline-num-layers 12", 2, "leaves 0 layers for the 1 stage"),
    ("--pipeline-model-parallel-size 2 --decoder-first-pipeline-num-layers 13", 2, "leaves -1 layers"),
    ("--pipeline-model-parallel-size 3 --decoder-last-pipeline-num-layers 3", 3, "leaves 9 layers for the 2 stages"),
    (
        "--pipeline-model-parallel-size 2 --decoder-first-pipeline-num-layers 5 --decoder-last-pipeline-num-layers 5",
        2,
        "use --num-layers 10",
    ),
    ("--overlap-param-gather", 1, "needs --overlap-grad-reduce"),
    ("--recompute-granularity all", 1, "Known: full, selective"),
    ("--recompute-granularity full --recompute-num-layers 5", 1, "does not divide the 12 layers of a stage; use 4"),
    (
        "--recompute-granularity full --recompute-method block --recompute-num-layers 13",
        1,
        "more than the 12 layers of a stage; use 12 or less",
    ),
    ("--recompute-granularity full --recompute-method unifrom", 1, "did you mean uniform?"),
    ("--recompute-num-layers 0", 1, "--recompute-num-layers 0"),
    ("--recompute-num-layers 2", 1, "--recompute-num-layers has no effect without --recompute-granularity full"),
    ("--recompute-granularity selective --recompute-num-layers 2", 1, "--recompute-num-layers has no effect without"),
    ("--recompute-method block", 1, "--recompute-method has no effect without --recompute-granularity full"),
    ("--device gpu", 1, "--device gpu is not known"),
    ("--device tpu", 1, "Known: auto, cpu, cuda"),
    ("--distributed-timeout-minutes 0", 1, "--distributed-timeout-minutes 0 is too small"),
    ("--distributed-timeout-minutes 2.5", 1, "--distributed-timeout-minutes must be a whole number, not 2.5"),
    # batches
    ("--micro-batch-size 0", 1, "--micro-batch-size 0"),
    ("--global-batch-size 0", 1, "--global-batch-size 0"),
    ("--global-batch-size 6", 4, "not divisible by --micro-batch-size 1 x 4 data-parallel ranks; use 8"),
    ("--micro-batch-size 4 --global-batch-size 6", 1, "use 8"),
    ("--micro-batch-size 8 --global-batch-size 4", 1, "use 8"),
    ("--rampup-batch-size 2 2", 1, "takes three whole numbers above 0"),
    ("--rampup-batch-size 2 2 0 --global-batch-size 8", 1, "takes three whole numbers above 0"),
    ("--rampup-batch-size 2 2 100", 1, "--rampup-batch-size needs --global-batch-size"),
    ("--rampup-batch-size 2 4 100 --global-batch-size 8", 1, "in whole increments"),
    ("--rampup-batch-size 8 4 100 --global-batch-size 8", 1, "in whole increments"),
    ("--rampup-batch-size 2 3 100 --global-batch-size 8 --micro-batch-size 2", 1, "use multiples of 2"),
    ("--rampup-batch-size 2 2 1e3 --global-batch-size 8", 1, "--rampup-batch-size must be a whole number, not 1e3"),
    ("--train-iters 0", 1, "--train-iters 0"),
    ("--seed -1", 1, "--seed -1"),
    # optimisation
    ("--lr 0", 1, "--lr 0.0 is too small; use more than 0.0"),
    ("--lr -1", 1, "--lr -1.0"),
    ("--lr inf", 1, "--lr inf must be a finite number"),
    ("--lr 3,e-4", 1, "--lr must be a number, not 3,e-4"),
    ("--min-lr 1", 1, "--min-lr 1.0 is above --lr 0.0003"),
    ("--min-lr -1", 1, "--min-lr -1.0"),
    ("--lr-decay-style cosin", 1, "did you mean cosine?"),
    ("--lr-decay-style wsd", 1, "--lr-decay-style wsd is not known"),
    ("--lr-decay-style inverse_square_root", 1, "did you mean inverse-square-root?"),
    ("--lr-warmup-iters 1000", 1, "does not end before --train-iters 1000; use 999 or less"),
    ("--lr-warmup-iters 50 --lr-decay-iters 50", 1, "does not end before --lr-decay-iters 50; use 49 or less"),
    ("--lr-warmup-iters -1", 1, "--lr-warmup-iters -1"),
    ("--lr-decay-style WSD", 1, "--lr-decay-style WSD needs --lr-wsd-decay-iters"),
    ("--lr-wsd-decay-iters 10", 1, "--lr-wsd-decay-iters needs --lr-decay-style WSD"),
    ("--lr-decay-style WSD --lr-wsd-decay-iters 1001", 1, "--lr-wsd-decay-iters 1001 does not fit"),
    ("--lr-decay-style WSD --lr-wsd-decay-iters 950 --lr-warmup-iters 60", 1, "use 940 or less"),
    ("--lr-decay-style WSD --lr-wsd-decay-iters 9 --lr-wsd-decay-style root", 1, "Known: linear, cosine"),
    ("--weight-decay -0.1", 1, "--weight-decay -0.1"),
    ("--adam-beta1 1", 1, "--adam-beta1 1.0 is too large"),
    ("--adam-beta2 1.5", 1, "--adam-beta2 1.5 is too large"),
    ("--adam-eps 0", 1, "--adam-eps 0.0"),
    ("--clip-grad -1", 1, "--clip-grad -1.0"),
    ("--z-loss-coeff -1", 1, "--z-loss-coeff -1.0"),
    ("--bf16 --fp16", 1, "--bf16 and --fp16 exclude each other"),
    ("--initial-loss-scale 0.5", 1, "--initial-loss-scale 0.5"),
    ("--fp16 --min-loss-scale 1e9", 1, "is above --initial-loss-scale"),
    ("--initial-loss-scale 1024", 1, "--initial-loss-scale has no effect without --fp16; leave it out."),
    ("--min-loss-scale 2 --bf16", 1, "--min-loss-scale has no effect without --fp16"),
    ("--loss-scale-window 10", 1, "--loss-scale-window has no effect without --fp16"),
    ("--hysteresis 1", 1, "--hysteresis has no effect without --fp16"),
    ("--lr-decay-style constant --min-lr 1e-5", 1, "--min-lr has no effect with --lr-decay-style constant"),
    ("--lr-decay-style constant --lr-decay-iters 9", 1, "--lr-decay-iters has no effect with"),
    ("--lr-hold-iters 100", 1, "--lr-hold-iters has no effect without --lr-decay-style inverse-square-root"),
    (
        "--lr-decay-style inverse-square-root --lr-hold-iters 100 --lr-warmup-iters 100",
        1,
        "--lr-hold-iters 100 ends before --lr-warmup-iters 100",
    ),
    ("--optimizer adamw", 1, "--optimizer adamw is not known; did you mean adam?"),
    ("--optimizer adafactor --weight-decay 0.01", 1, "--weight-decay has no effect with --optimizer adafactor"),
    ("--optimizer adafactor --adam-beta2 0.9", 1, "--adam-beta2 has no effect with --optimizer adafactor"),
    (
        "--optimizer adafactor --overlap-grad-reduce --overlap-param-gather",
        1,
        "--overlap-param-gather has no effect with --optimizer adafactor",
    ),
    ("--init-method xavier", 1, "Known: normal, t5"),
    ("--init-method t5 --init-method-std 0.01", 1, "--init-method-std has no effect with --init-method t5"),
    ("--lr-wsd-decay-style cosine", 1, "--lr-wsd-decay-style has no effect without --lr-decay-style WSD"),
    ("--weight-decay 0 --no-weight-decay-on-embeddings", 1, "--no-weight-decay-on-embeddings has no effect with"),
    ("--loss-scale-window 0", 1, "--loss-scale-window 0"),
    ("--hysteresis 0", 1, "--hysteresis 0"),
    # data
    ("--data-path", 1, "--data-path needs a value"),
    ("--data-path /nowhere/corpus", 1, "/nowhere/corpus.bin and /nowhere/corpus.idx not found"),
    ("--data-path {inputs}/corpus.bin", 1, "name both by their prefix, {inputs}/corpus"),
    ("--data-path 0.5 {inputs}/corpus 0.5 /nowhere/b", 1, "/nowhere/b.bin"),
    ("--data-path 1 {inputs}/corpus 2", 1, "3 parts are neither"),
    ("--data-path {inputs}/corpus {inputs}/corpus", 1, "is not a weight above 0"),
    ("--data-path 0 {inputs}/corpus", 1, "--data-path 0 is not a weight above 0"),
    ("--data-path nan {inputs}/corpus", 1, "--data-path nan is not a weight above 0"),
    ("--train-data-path {inputs}/corpus --eval-iters 0", 1, "--data-path and --train-data-path exclude each other"),
    ("--valid-data-path {inputs}/corpus", 1, "--valid-data-path needs --train-data-path"),
    ("--split 1,2,3,4", 1, "is not up to three numbers"),
    ("--split a", 1, "is not up to three numbers"),
    ("--split 0,0,0", 1, "is not up to three numbers"),
    ("--split 9,-1,0", 1, "is not up to three numbers"),
    ("--split nan,1", 1, "is not up to three numbers"),
    ("--split 100,0,0", 1, "leaves nothing to validate on"),
    ("--split 0,1", 1, "leaves nothing for training"),
    ("--seq-length 0", 1, "--seq-length 0"),
    ("--tokenizer-type GPT2BPETokenizer", 1, "--tokenizer-type GPT2BPETokenizer is not known"),
    ("--tokenizer-type SentencepieceTokenizer", 1, "did you mean SentencePieceTokenizer?"),
    ("--tokenizer-type HuggingFaceTokenizer", 1, "is not a folder"),
    ("--tokenizer-model {inputs}/hf_tokenizer", 1, "is a folder"),
    ("--tokenizer-model /nowhere.model", 1, "--tokenizer-model /nowhere.model not found"),
    ("--objective fill_in_the_middle --fim-rate 1.5", 1, "--fim-rate 1.5 is too large; use 1.0 or less"),
    ("--objective fill_in_the_middle --fim-spm-rate -1", 1, "--fim-spm-rate -1.0 is too small; use 0.0 or more"),
    ("--fim-rate 0.5", 1, "--fim-rate has no effect with --objective full_lm; leave it out."),
    ("--objective ul2 --noise-density 0.3", 1, "--noise-density has no effect with --objective ul2; leave it out."),
    ("--objective ul2 --reset-attention-mask", 1, "--reset-attention-mask has no effect with --objective ul2"),
    ("--objective ul2 --reset-position-ids", 1, "--reset-position-ids has no effect with --objective ul2"),
    ("--objective span_corruption --eod-mask-loss", 1, "--eod-mask-loss has no effect with --objective span_corrupt"),
    ("--add-special-tokens sentinel", 1, "--add-special-tokens sentinel is not known; did you mean sentinels?"),
    ("--add-special-tokens sentinels fim", 1, "--add-special-tokens fim is not known; Known: sentinels, mode_tokens"),
    ("--num-workers -1", 1, "--num-workers -1"),
    # checkpoints and logging
    ("--load /nowhere", 1, "--load /nowhere is not a folder"),
    ("--load {inputs}/tokenizer.model", 1, "is not a folder"),
    ("--save {inputs}/tokenizer.model", 1, "tokenizer.model is not a folder"),
    ("--save {inputs}/tokenizer.model/run", 1, "tokenizer.model is not a folder"),
    ("--finetune", 1, "--finetune needs --load"),
    ("--load-iteration 3", 1, "--load-iteration needs --load"),
    ("--save-interval 10", 1, "--save-interval needs --save"),
    ("--save-interval 0 --save {inputs}/run", 1, "--save-interval 0"),
    ("--keep-last 2", 1, "--keep-last needs --save"),
    ("--keep-every 10 --save {inputs}/run", 1, "--keep-every needs --keep-last"),
    ("--async-save", 1, "--async-save needs --save"),
    ("--strict-save", 1, "--strict-save needs --save"),
    ("--eval-interval 0", 1, "--eval-interval 0"),
    ("--eval-interval 5 --eval-iters 0", 1, "--eval-interval 5 needs --eval-iters 1 or more"),
    ("--eval-iters -1", 1, "--eval-iters -1"),
    ("--log-interval 0", 1, "--log-interval 0"),
    ("--tensorboard-dir {inputs}/tokenizer.model", 1, "--tensorboard-dir"),
    ("--peak-tflops 0", 1, "--peak-tflops 0.0"),
    ("--profile-steps 3 --save {inputs}/run", 1, "takes two steps, FIRST LAST"),
    ("--profile-steps 5 3 --save {inputs}/run", 1, "takes two steps, FIRST LAST"),
    ("--profile-steps 3 5", 1, "--profile-steps needs --save"),
    ("--profile-steps 999 1001 --save {inputs}/run", 1, "goes beyond --train-iters 1000"),
    ("--max-nonfinite-steps 0", 1, "--max-nonfinite-steps 0"),
    ("--exit-interval 0", 1, "--exit-interval 0"),
    ("--exit-duration-in-mins 0", 1, "--exit-duration-in-mins 0.0"),
    # the command itself
    ("--objective span_curruption", 1, "did you mean span_corruption? It takes: full_lm, prefix_lm, span_corruption"),
    ("--objective masked_lm", 1, "is not one of causal_decoder; it takes: full_lm, prefix_lm"),
    ("--objective", 1, "--objective needs a value"),
    ("--model-parallel-size 2", 1, "--model-parallel-size is not a known flag"),
    ("--no-such-thing 2", 1, "--no-such-thing is not a known flag"),
    ("--config /nowhere.yaml", 1, "--config /nowhere.yaml cannot be read"),
    ("", 0, "WORLD_SIZE=0 in the environment is not a number of processes"),
    ("", "four", "WORLD_SIZE=four"),
]


@pytest.mark.parametrize(("words", "world_size", "sentence"), WRONG, ids=[f"{row[0]}@{row[1]}" for row in WRONG])
def test_wrong_settings(
    words: str, world_size: int | str, sentence: str, sound_flags: list[str], inputs: Path, faults_of: FaultsOf
) -> None:
    before = sorted(inputs.iterdir())
    answer = faults_of([*sound_flags, *words.format(inputs=inputs).split()], world_size)
    assert len(answer) == 1, answer
    assert sentence.format(inputs=inputs) in answer[0]
    assert answer[0].endswith((".", "?"))
    assert "\n" not in answer[0]
    assert sorted(inputs.iterdir()) == before


@pytest.mark.parametrize(
    ("options_class", "settings", "sentence"),
    [
        (
            DataOptions,
            {"train_data_path": ["a"], "split": "9,1,0"},
            "--split has no effect with --train-data-path; leave it out.",
        ),
        (
            TextInputOptions,
            {"input": ["a"], "input_format": "text", "json_keys": ["body"]},
            "--json-keys has no effect with --input-format text; leave it out.",
        ),
        (
            TextInputOptions,
            {"input": ["a"], "input_format": "jsonl", "text_documents": "line"},
            "--text-documents has no effect with --input-format jsonl; leave it out.",
        ),
    ],
)
def test_settings_without_effect(options_class: type[Options], settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        options_class(**settings)
    assert caught.value.faults == (sentence,)


def test_there_are_two_hundred_of_them() -> None:
    per_flag = 3 * len(ALL_FLAGS)
    assert len(WRONG) >= 150
    assert len(WRONG) + per_flag >= 200


@pytest.mark.parametrize("flag", ALL_FLAGS)
def test_every_flag_misspelt_incomplete_or_of_the_wrong_type(
    flag: str, sound_flags: list[str], faults_of: FaultsOf
) -> None:
    misspelt = flag[:3] + flag[4:] if len(flag) > 5 else flag + "x"
    answer = faults_of([*sound_flags, misspelt, "1"])
    assert any(f"{misspelt} is not a known flag; did you mean --" in fault for fault in answer)
    wanted = ALL_FLAGS[flag]
    if wanted.scalar is bool:
        assert f"{flag} is a switch and takes no value, not 7." in faults_of([*sound_flags, flag, "7"])
        return
    assert f"{flag} needs a value." in faults_of([*sound_flags, flag])
    if wanted.scalar is not str:
        (fault,) = faults_of([*sound_flags, flag, "many"])
        assert re.fullmatch(rf"{flag} must be a (whole )?number, not many\.", fault)


@pytest.mark.parametrize("required", ["--data-path", "--tokenizer-model"])
def test_what_a_run_cannot_do_without(required: str, sound_flags: list[str], faults_of: FaultsOf) -> None:
    at = sound_flags.index(required)
    (fault,) = faults_of(sound_flags[:at] + sound_flags[at + 2 :])
    assert fault.startswith(f"{required} is missing; give")


def test_weights_and_biases_must_be_installed_to_be_asked_for(
    sound_flags: list[str], faults_of: FaultsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (fault,) = faults_of([*sound_flags, "--wandb-project", "x"])
    assert "needs the wandb package" in fault


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(sound_flags: list[str], faults_of: FaultsOf, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    (fault,) = faults_of([*sound_flags, "--save", str(tmp_path / "run")])
    assert "no permission to write" in fault


@pytest.mark.parametrize(
    ("words", "world_size"),
    [
        ("--tensor-model-parallel-size 2 --sequence-parallel --pipeline-model-parallel-size 2", 8),
        ("--pipeline-model-parallel-size 3 --decoder-first-pipeline-num-layers 2", 3),
        (
            "--pipeline-model-parallel-size 2 --decoder-first-pipeline-num-layers 5 "
            "--decoder-last-pipeline-num-layers 7",
            2,
        ),
        ("--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 3 --global-batch-size 4", 4),
        ("--rampup-batch-size 4 4 1000 --global-batch-size 32 --micro-batch-size 2", 2),
        ("--lr-decay-style WSD --lr-wsd-decay-iters 940 --lr-warmup-iters 60", 1),
        ("--lr-decay-style constant --lr-warmup-iters 5000", 1),
        ("--split 100 --eval-iters 0", 1),
        ("--tokenizer-type HuggingFaceTokenizer --tokenizer-model {inputs}/hf_tokenizer", 1),
        ("--data-path 0.3 {inputs}/corpus 1e-2 {inputs}/corpus", 1),
        ("--recompute-granularity full --recompute-num-layers 3", 1),
        ("--save {inputs}/new/run --save-interval 5 --keep-last 2 --keep-every 10 --profile-steps 3 4", 1),
    ],
)
def test_sound_settings_pass(
    words: str, world_size: int, sound_flags: list[str], inputs: Path, faults_of: FaultsOf
) -> None:
    assert faults_of([*sound_flags, *words.format(inputs=inputs).split()], world_size) == []
