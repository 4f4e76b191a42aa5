"""Verdicts from end to end: each architecture passes, the text can be chosen, and strangers' code never runs."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from megatron.basics.errors import RunFault
from megatron.checkpoint.contents import Progress
from megatron.checkpoint.manifest import read_manifest
from megatron.conversion.checkpoint_weights import CheckpointWeights
from megatron.conversion.checkpoint_writer import write_checkpoint
from megatron.conversion.tensor_writer import PlannedTensor
from tests.unit.cli.verdicts.verdict_cases import (
    KINDS,
    LENGTH,
    SIZES,
    WORDS,
    change_config,
    convert,
    refusal,
    verdict_of,
    verify,
)


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_end_with_a_verdict(kind, runs, tmp_path, capsys):
    arrival = verdict_of(runs / kind)
    assert arrival["folder"] == kind and arrival["checkpoint"] == f"{kind}/iter_0000000"
    convert("to-hf", runs / kind, tmp_path / "out")
    printed = capsys.readouterr().out
    leaving = verdict_of(tmp_path / "out")
    for verdict in (arrival, leaving):
        assert (verdict["verdict"], verdict["reasons"]) == ("passed", [])
        parity = verdict["parity"]
        assert 0 < parity["max_difference"] < 1e-4 and parity["mean_difference"] < parity["max_difference"]
        assert parity["same_top"] == 1.0 and parity["positions"] == 4 * LENGTH
        assert parity["log_likelihood"]["checkpoint"] == pytest.approx(parity["log_likelihood"]["folder"], abs=1e-5)
        weights = {"tensors": arrival["weights"]["tensors"], "different": [], "rounded": 0, "rounding": None}
        assert verdict["weights"] == weights
        assert verdict["tokenizer"]["is_same"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Not verified" not in card and "**verdict: passed**" in card
    assert printed.rstrip().endswith("verdict: passed")
    largest = f"{leaving['parity']['max_difference']:.3g} (at most {leaving['tolerance']:.3g} passes)"
    assert leaving["tolerance"] == pytest.approx(1e-4 * max(1.0, leaving["parity"]["root_mean_square"]))
    assert largest in printed and f"| largest difference of logits | {largest} |" in card


def test_the_figures_are_those_of_transformers(runs, folders):
    """The log-likelihood of the verdict is the loss that transformers computes of the same tokens itself."""
    from megatron.conversion.verification_sample import sample_text

    model = transformers.LlamaForCausalLM.from_pretrained(folders / "causal", dtype=torch.float64)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders / "causal")
    ids = torch.tensor(tokenizer(sample_text(None).text)["input_ids"][: 4 * (LENGTH + 1)]).view(4, LENGTH + 1)
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss
    assert verdict_of(runs / "causal")["parity"]["log_likelihood"]["folder"] == pytest.approx(-float(loss), abs=1e-5)


def test_prefixes_are_read_both_ways(runs, folders, tmp_path, monkeypatch):
    """A class that would not hear of its prefix gives other logits, and a causal folder is compared as it reads."""
    monkeypatch.setattr("megatron.conversion.loaded_folder._prefix", lambda *_: {})
    with pytest.raises(RunFault, match="logits differ by"):
        verify(runs / "prefix", folders / "prefix")
    monkeypatch.undo()
    convert("to-hf", runs / "prefix", tmp_path / "causal", "--family", "gpt2")
    verdict = verdict_of(tmp_path / "causal")
    assert verdict["verdict"] == "passed" and verdict["architecture"] == "causal_decoder"
    # Masks among the tensors, as older folders of GPT-2 and GPT-NeoX have them, are no weights.
    tensors = load_file(tmp_path / "causal" / "model.safetensors")
    mask = torch.ones(1, 1, LENGTH, LENGTH)
    masks = {"transformer.h.0.attn.bias": mask.bool(), "transformer.h.1.attn.bias": mask.byte()}
    save_file({**tensors, **masks}, tmp_path / "causal" / "model.safetensors", metadata={"format": "pt"})
    verify(runs / "prefix", tmp_path / "causal")
    assert verdict_of(tmp_path / "causal")["weights"]["tensors"] == len(tensors)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_precisions_are_compared_as_exactly(dtype, runs, folders, tmp_path):
    direction, source = ("to-hf", runs) if dtype == "bfloat16" else ("from-hf", folders)
    convert(direction, source / "causal", tmp_path / "new", "--dtype", dtype)
    verdict = verdict_of(tmp_path / "new")
    assert verdict["verdict"] == "passed" and verdict["parity"]["max_difference"] < 1e-4
    assert set(verdict["precision"].values()) == {"float32", dtype, False}
    assert verdict["weights"]["rounding"] == dtype and verdict["weights"]["rounded"] == verdict["weights"]["tensors"]


def test_float32_folders_are_compared_with_the_weights_of_the_optimizer(runs, export, tmp_path):
    """The checkpoint's own weights are their roundings, and so is a folder in less precision."""
    exact = runs / "causal" / "iter_0000000"
    manifest = read_manifest(exact)
    names = {name: entry.shape for name, entry in manifest.tensors.items()}
    weights = CheckpointWeights(exact, manifest, names)
    run = tmp_path / "run"
    write_checkpoint(
        run,
        replace(manifest.contents, progress=Progress(iteration=7)),
        [
            *(PlannedTensor(name, "bfloat16", shape) for name, shape in names.items()),
            *(PlannedTensor(f"optimizer.state.param.{name}", "float32", shape) for name, shape in names.items()),
        ],
        [*(weights.read(name).bfloat16() for name in names), *(weights.read(name) for name in names)],
        max_shard_bytes=10**6,
        advance=lambda _: None,
    )
    verify(run, export)
    convert("to-hf", run, tmp_path / "rounded")
    assert verdict_of(tmp_path / "rounded")["precision"]["checkpoint"] == "bfloat16"
    convert("to-hf", run, tmp_path / "whole", "--dtype", "float32")
    whole = verdict_of(tmp_path / "whole")
    assert whole["precision"]["from_masters"] and not whole["weights"]["rounded"]


def test_a_verdict_that_cannot_be_kept_is_told(runs, copied, capsys, caplog):
    (copied / "verdict.json").unlink(missing_ok=True)
    (copied / "verdict.json").mkdir()
    verify(runs / "causal", copied)
    assert capsys.readouterr().out.rstrip().endswith("verdict: passed")
    assert f"the verdict is not kept: {copied / 'verdict.json'} could not be written: a folder has" in caplog.text


def test_other_models_are_told_by_what_parts_them(runs, folders, tmp_path):
    assert "holds another architecture (encoder_decoder) than the checkpoint (causal_decoder)" in refusal(
        "verify", "--load", runs / "causal", "--hf", folders / "encoder-decoder"
    )
    for name, fields, sentence in (
        ("words", {"vocab_size": WORDS - 1}, "has 269 words and the checkpoint 270; they are different models."),
        ("wide", {"intermediate_size": 32}, "mlp.linear_fc1.weight is [64, 16] by the folder and [48, 16] in the"),
        ("deep", {"num_hidden_layers": 3}, "layers.2.input_layernorm.weight is [16] by the folder and not there in"),
    ):
        other = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**{**SIZES, **fields}, tie_word_embeddings=False)
        )
        other.save_pretrained(tmp_path / name)
        assert sentence in refusal("verify", "--load", runs / "causal", "--hf", tmp_path / name)


def test_code_of_strangers_is_refused_and_never_run(folders, runs, copied, tmp_path):
    mark = tmp_path / "it ran"
    hostile = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    (copied / "evil.py").write_text(hostile)
    change_config(copied, auto_map={"AutoModelForCausalLM": "evil.Model"})
    assert "config.json names code of the folder's own (auto_map), which is never run" in refusal(
        "verify", "--load", runs / "causal", "--hf", copied
    )
    assert "never run" in refusal("from-hf", "--load", copied, "--save", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    convert("from-hf", copied, tmp_path / "new", "--no-verify")

    ours = shutil.copytree(folders / "prefix", tmp_path / "ours")
    with (ours / "modeling_triarch.py").open("a") as file:
        file.write(hostile)
    sentence = refusal("verify", "--load", runs / "prefix", "--hf", ours)
    assert sentence.startswith(f"{ours / 'modeling_triarch.py'} is not the file that this version exports")
    shutil.copy(folders / "prefix" / "modeling_triarch.py", ours)
    settings = json.loads((ours / "tokenizer_config.json").read_text())
    named = {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    (ours / "tokenizer_config.json").write_text(json.dumps(settings | named))
    (ours / "evil.py").write_text(hostile)
    assert "tokenizer_config.json names code" in refusal("verify", "--load", runs / "prefix", "--hf", ours)
    change_config(ours, auto_map=None)
    (ours / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "config.json has no auto_map" in refusal("verify", "--load", runs / "prefix", "--hf", ours)
    assert not mark.exists()


def test_the_text_can_be_chosen(runs, folders, tmp_path):
    text = tmp_path / "some.txt"
    text.write_text("</s> whether tis nobler in the mind to suffer the slings and arrows")
    convert("from-hf", folders / "causal", tmp_path / "run", "--verify-text", str(text))
    verdict = verdict_of(tmp_path / "run")
    assert verdict["text"] == "some.txt" and 1 <= verdict["rows"] < 4 and verdict["tokenizer"]["is_same"]
    question = ("verify", "--load", runs / "causal", "--hf", folders / "causal", "--verify-text", text)
    text.write_text("a")
    assert "--verify-text has 1 tokens, too few to predict any" in refusal(*question)
    text.write_text(" \n")
    assert f"--verify-text {text} is empty" in refusal(*question)
    text.write_bytes(b"\xff\xfe\x00")
    assert f"--verify-text {text} cannot be read: it is not UTF-8." in refusal(*question)
    words = ("to-hf", "--load", runs / "causal", "--save", tmp_path / "out", "--verify-text", tmp_path / "nowhere")
    assert "cannot be read: No such file or directory." in refusal(*words)
    assert not (tmp_path / "out").exists()
    assert refusal(*words, "--no-verify") == "--verify-text has no effect with --no-verify; leave it out."


def test_strangers_folders_stay_as_they_were(runs, folders):
    before = {path.name: path.stat().st_mtime_ns for path in (folders / "causal").iterdir()}
    verify(runs / "causal", folders / "causal")
    assert {path.name: path.stat().st_mtime_ns for path in (folders / "causal").iterdir()} == before


def test_what_verify_needs(runs, tmp_path, monkeypatch):
    assert refusal("verify", "--load", runs / "causal") == (
        "--hf is missing; name the Hugging Face folder to compare with the checkpoint."
    )
    assert "--hf nowhere is not a folder" in refusal("verify", "--load", runs / "causal", "--hf", "nowhere")
    assert "holds no complete checkpoint" in refusal("verify", "--load", tmp_path, "--hf", tmp_path)
    assert "has no config.json" in refusal("verify", "--load", runs / "causal", "--hf", tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "takes one process; start it without torchrun." in refusal("verify", "--load", tmp_path, "--hf", tmp_path)
