"""Verdicts from end to end: each architecture passes, what is not the same fails, and strangers' code never runs."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from megatron.basics.errors import RunFault, UserError, exit_on_user_error
from megatron.checkpoint.contents import Progress
from megatron.checkpoint.manifest import read_manifest
from megatron.cli.convert import main
from megatron.conversion.checkpoint_weights import CheckpointWeights
from megatron.conversion.checkpoint_writer import write_checkpoint
from megatron.conversion.modeling_files import modeling_triarch
from megatron.conversion.registry import FAMILIES
from megatron.conversion.tensor_writer import PlannedTensor
from tests.oracles.one_process_model import one_process_grid

LENGTH = 20
WORDS = 270
IDS = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    **IDS,
}
LEARNED = {"decoder_type": "prefix_decoder", "bidirectional_prompts": True, "head_dim": 8, "initializer_range": 0.3}
T5 = {"vocab_size": WORDS, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "n_positions": LENGTH}
KINDS = ("causal", "prefix", "encoder-decoder")


def model_of(kind):
    if kind == "causal":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=False))
    elif kind == "prefix":
        model = modeling_triarch.TriarchForCausalLM(modeling_triarch.TriarchConfig(**SIZES, **LEARNED))
    else:
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5, decoder_start_token_id=0))
    torch.manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.3)
    return model


@pytest.fixture(scope="module", autouse=True)
def modules_cache(tmp_path_factory):
    """Where transformers copies the code that it runs: not into the home of whoever tests."""
    one_process_grid()
    patch = pytest.MonkeyPatch()
    folder = str(tmp_path_factory.mktemp("modules"))
    patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", folder)
    patch.syspath_prepend(folder)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each kind, as transformers saves it, with a vocabulary of bytes."""
    root = tmp_path_factory.mktemp("folders")
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator(["to be or not to be that is the question"] * 9, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    for kind in KINDS:
        model_of(kind).save_pretrained(root / kind, max_shard_size="20KB")
        tokenizer.save_pretrained(root / kind)
    add_our_code(root / "prefix")
    return root


def add_our_code(folder):
    family = FAMILIES["triarch_decoder"]
    classes = {"AutoConfig": "TriarchConfig", "AutoModelForCausalLM": "TriarchForCausalLM"}
    change_config(folder, auto_map={auto: f"modeling_triarch.{name}" for auto, name in classes.items()})
    for name, text in family.files.items():
        (folder / name).write_text(text)


def change_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def convert(direction, load, save, *words):
    main([direction, "--load", str(load), "--save", str(save), *words])


def verify(run, folder, *words):
    main(["verify", "--load", str(run), "--hf", str(folder), *words])


def verdict_of(folder):
    return json.loads((folder / "verdict.json").read_text())


@pytest.fixture(scope="module")
def runs(folders, tmp_path_factory):
    """The run folder of each kind."""
    root = tmp_path_factory.mktemp("runs")
    for kind in KINDS:
        convert("from-hf", folders / kind, root / kind, "--objective", "prefix_lm", "--seq-length", str(LENGTH))
    return root


@pytest.fixture(scope="module")
def export(runs, tmp_path_factory):
    """The causal model as it leaves."""
    folder = tmp_path_factory.mktemp("export") / "causal"
    convert("to-hf", runs / "causal", folder, "--no-verify")
    return folder


@pytest.fixture
def copied(export, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(export, tmp_path / "copied")


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


def failure(run, folder, *words):
    with pytest.raises(RunFault) as raised:
        verify(run, folder, *words)
    return str(raised.value)


def changed_tensor(folder, name, change):
    (path,) = [path for path in folder.glob("*.safetensors") if name in load_file(path)]
    tensors = load_file(path)
    change(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})


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


def refusal(*words):
    with pytest.raises(UserError) as raised:
        main([*map(str, words)])
    return "\n".join(raised.value.faults)


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
