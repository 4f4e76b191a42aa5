"""What is not the same fails: a number, a row, a setting, an iteration, a tokenizer."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import processors

from megatron.basics.errors import RunFault, exit_on_user_error
from megatron.checkpoint.contents import Progress
from megatron.checkpoint.manifest import read_manifest
from megatron.conversion.checkpoint_weights import CheckpointWeights
from megatron.conversion.checkpoint_writer import write_checkpoint
from megatron.conversion.tensor_writer import PlannedTensor
from tests.unit.cli.verdicts.verdict_cases import (
    LENGTH,
    change_config,
    changed_tensor,
    convert,
    failure,
    refusal,
    verdict_of,
    verify,
)


def test_one_wrong_number_fails(runs, copied, capsys):
    def raise_one(tensor):
        tensor[3, 5] += 0.5

    changed_tensor(copied, "model.layers.1.mlp.up_proj.weight", raise_one)
    sentence = failure(runs / "causal", copied)
    assert sentence.startswith(f"{copied} does not hold the model that it was compared with: logits differ by 0.")
    assert "1 of 21 tensors differ (model.layers.1.mlp.up_proj.weight)" in sentence
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith("verdict: FAILED, logits differ by")
    assert verdict_of(copied)["verdict"] == "FAILED" and "verdict: FAILED" in (copied / "README.md").read_text()
    with pytest.raises(SystemExit) as ended:
        exit_on_user_error(lambda: verify(runs / "causal", copied))
    assert ended.value.code == 1
    assert "logits differ" not in failure(runs / "causal", copied, "--tolerance", "1000")


def test_a_wrong_row_that_no_text_reads_fails(runs, copied):
    def raise_row(tensor):
        tensor[1] += 0.5  # the end token's, which the text does not hold

    changed_tensor(copied, "model.embed_tokens.weight", raise_row)
    sentence = failure(runs / "causal", copied)
    assert "logits differ" not in sentence and "(model.embed_tokens.weight)" in sentence


def test_numbers_that_are_none_fail(runs, copied):
    changed_tensor(copied, "model.norm.weight", lambda tensor: tensor.fill_(torch.nan))
    assert "logits are not finite" in failure(runs / "causal", copied)
    assert verdict_of(copied)["parity"]["max_difference"] is None


def test_a_setting_that_no_tensor_shows_fails(runs, copied):
    change_config(copied, rms_norm_eps=0.5)
    sentence = failure(runs / "causal", copied)
    assert "logits differ by" in sentence and "tensors differ" not in sentence


def test_settings_that_no_logit_shows_fail(runs, copied, tmp_path):
    """Lengths, special tokens, what stands around texts, and how prompts are read."""
    change_config(copied, max_position_embeddings=4 * LENGTH, eos_token_id=7)
    path = copied / "tokenizer.json"
    fast = FastTokenizer.from_file(str(path))
    fast.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 1)])
    fast.save(str(path))
    sentence = failure(runs / "causal", copied)
    assert "logits" not in sentence
    assert "; the folder's puts </s> in front of texts, and rows have nothing there; " in sentence
    assert sentence.endswith(
        f"; longest row: {LENGTH} by the checkpoint, {4 * LENGTH} by the folder; end token: 1 by the checkpoint, 7 by "
        "the folder."
    )

    folder = tmp_path / "prefix"
    convert("to-hf", runs / "prefix", folder, "--no-verify")
    change_config(folder, bidirectional_prompts=False)
    assert failure(runs / "prefix", folder).endswith(
        "compared with: prompts that are read both ways: yes by the checkpoint, no by the folder."
    )
    change_config(folder, decoder_type="causal_decoder")
    assert "holds another architecture (causal_decoder)" in refusal("verify", "--load", runs / "prefix", "--hf", folder)

    folder = tmp_path / "encoder-decoder"
    convert("to-hf", runs / "encoder-decoder", folder, "--no-verify")
    change_config(folder, pad_token_id=4, decoder_start_token_id=4)
    assert failure(runs / "encoder-decoder", folder).endswith(
        "compared with: the decoder's start token: 0 by the checkpoint, 4 by the folder."
    )
    new = tmp_path / "new"
    sentence = refusal("from-hf", "--load", folder, "--save", new, "--no-verify")
    assert sentence.startswith(
        f"{folder}/config.json: the decoder starts with token 4 (decoder_start_token_id), and in a run with the "
        "tokenizer's padding, 0 (<pad>); correct pad_token"
    )
    assert not new.exists()


def test_a_conversion_that_goes_wrong_leaves_a_folder_that_says_so(runs, tmp_path, monkeypatch):
    from megatron.conversion import export

    whole = export.write_export

    def broken(plan, weights, provenance, folder, **options):
        whole(plan, weights, provenance, folder, **options)
        change_config(folder, rope_parameters={"rope_type": "default", "rope_theta": 3.0})

    monkeypatch.setattr(export, "write_export", broken)
    with pytest.raises(RunFault, match=re.escape(f"{tmp_path / 'out'} does not hold the model")):
        convert("to-hf", runs / "causal", tmp_path / "out")
    assert verdict_of(tmp_path / "out")["verdict"] == "FAILED"
    convert("to-hf", runs / "causal", tmp_path / "unknown", "--no-verify")
    assert "Not verified" in (tmp_path / "unknown" / "README.md").read_text()
    assert not (tmp_path / "unknown" / "verdict.json").exists()


def test_another_iteration_fails(runs, export, tmp_path):
    run = shutil.copytree(runs / "causal", tmp_path / "run")
    first = run / "iter_0000000"
    manifest = read_manifest(first)
    weights = CheckpointWeights(first, manifest, {name: entry.shape for name, entry in manifest.tensors.items()})
    write_checkpoint(
        run,
        replace(manifest.contents, progress=Progress(iteration=5)),
        [PlannedTensor(name, "float32", entry.shape) for name, entry in manifest.tensors.items()],
        [weights.read(name) * 1.01 for name in manifest.tensors],
        max_shard_bytes=10**6,
        advance=lambda _: None,
    )
    verify(run, export, "--load-iteration", "0")
    assert "21 of 21 tensors differ (" in failure(run, export)

    # Damage of the one that is meant never makes a conversion fall back to another.
    shard, manifest_file = next((run / "iter_0000005").glob("*.safetensors")), run / "iter_0000005" / "manifest.json"
    mend = "; name another checkpoint with --load-iteration."
    content = shard.read_bytes()
    for damage, sentence in (
        (lambda: shard.write_bytes(content[:-1]), f"{shard} has {len(content) - 1} bytes, {len(content)} were written"),
        (shard.unlink, f"{shard} is missing"),
        (lambda: manifest_file.write_text("{"), f"{manifest_file} cannot be read: "),
        (manifest_file.unlink, f"{manifest_file} is missing: the checkpoint was never finished"),
    ):
        damage()
        said = refusal("to-hf", "--load", run, "--save", tmp_path / "new")
        assert said.startswith(sentence) and said.endswith(mend)
        assert refusal("verify", "--load", run, "--hf", export) == said
        assert not (tmp_path / "new").exists()


def test_another_tokenizer_fails(runs, copied):
    content = json.loads((copied / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    words["a"], words["e"] = words["e"], words["a"]
    (copied / "tokenizer.json").write_text(json.dumps(content))
    sentence = failure(runs / "causal", copied)
    assert "the tokenizers differ: other ids in " in sentence and "logits" not in sentence
    for path in copied.glob("tokenizer*"):
        path.unlink()
    verify(runs / "causal", copied)
    assert verdict_of(copied)["tokenizer"] == {"is_same": None, "remark": "the folder has none"}
