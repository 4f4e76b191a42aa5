"""tools/convert_checkpoint.py from end to end: folders of transformers come, train, leave, and are what they were."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers, processors, trainers

from megatron.basics.errors import UserError
from megatron.checkpoint.contents import Progress
from megatron.checkpoint.folders import checkpoints_of
from megatron.checkpoint.load import load_tensors
from megatron.checkpoint.manifest import read_manifest
from megatron.cli.convert import main
from megatron.cli.run_config import RunConfig
from megatron.cli.run_record import lineage_line
from megatron.cli.trained_model import read_record
from megatron.cli.wire import model_recipe, prompt_rows_of
from megatron.conversion.checkpoint_weights import CheckpointWeights
from megatron.conversion.checkpoint_writer import write_checkpoint
from megatron.conversion.tensor_file import TensorFile
from megatron.conversion.tensor_writer import PlannedTensor
from megatron.evaluation.options import TrainedModelOptions
from tests.oracles.one_process_model import batch_of, build_decoder, random_sequences

LENGTH = 24
WORDS = 101  # of the model; the tokenizer has fewer
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "tie_word_embeddings": False,
    "bos_token_id": 2,
    "eos_token_id": 0,
    "pad_token_id": 3,
}


@pytest.fixture(scope="module")
def tokenizer_files(tmp_path_factory):
    """A vocabulary of 90 ids whose texts begin with a token, as Llama's do, as transformers saves it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = FastTokenizer(models.BPE(unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["</s>", "<unk>", "<s>", "<pad>"], show_progress=False)
    fast.train_from_iterator(
        ["abcdefghijklmnopqrstuvwxyz " * 3, "to be or not to be that is the question"] * 9, trainer
    )
    fast.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    whole = transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    whole.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(3)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.1)
    return model


@pytest.fixture
def folder(theirs, tokenizer_files, tmp_path):
    """What save_pretrained makes of model and tokenizer, in several files."""
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    for path in tokenizer_files.iterdir():
        shutil.copy(path, tmp_path / "theirs")
    return tmp_path / "theirs"


def convert(direction, load, save, *words):
    """Without the verdict, which test_verify_command.py is about."""
    main([direction, "--load", str(load), "--save", str(save), "--no-verify", *words])
    assert save.is_dir() and not save.with_name(f"{save.name}.unfinished").exists()


def refused(direction, load, save, *words):
    with pytest.raises(UserError) as raised:
        convert(direction, load, save, *words)
    assert not save.exists() and not save.with_name(f"{save.name}.unfinished").exists()
    return raised.value.faults


def tensors_of(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def logits_of_ours(run, tokens_of):
    """Of the model that the run folder's own record describes, loaded by our own loader."""
    ((_, folder),) = checkpoints_of(run)
    manifest = read_manifest(folder)
    config = RunConfig.from_dict(manifest.contents.run)
    _, ours = build_decoder(model_recipe(config, manifest.contents.tokenizer["vocabulary_size"]))
    load_tensors(folder, manifest, [ours], None)
    with torch.no_grad():
        return ours(tokens_of).transpose(0, 1)[..., : manifest.contents.tokenizer["vocabulary_size"]]


def test_there_and_back(folder, theirs, tmp_path):
    run, back = tmp_path / "run", tmp_path / "back"
    convert("from-hf", folder, run, "--max-shard-size", "30KB")
    assert len(read_manifest(checkpoints_of(run)[0][1]).files) > 1
    batch = batch_of(random_sequences(2, LENGTH, vocabulary_size=WORDS))
    with torch.no_grad():
        assert torch.allclose(logits_of_ours(run, batch), theirs(batch.tokens).logits, rtol=1e-5, atol=1e-5)

    convert("to-hf", run, back)
    before, after = tensors_of(folder), tensors_of(back)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    was, now = (transformers.AutoConfig.from_pretrained(path).to_dict() for path in (folder, back))
    assert {name for name in was if was[name] != now.get(name)} <= {"_name_or_path", "transformers_version"}
    text = "to be or not to be abc"
    ids = [transformers.AutoTokenizer.from_pretrained(path)(text)["input_ids"] for path in (folder, back)]
    assert ids[0] == ids[1] and ids[0][0] == 2
    assert {name: now[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")} == {
        name: SIZES[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }


def test_prompts_begin_as_the_folders_own_tokenizer_has_them(folder, theirs, tmp_path):
    """What follows a text is as likely by our rows of prompts as by transformers with the folder's special tokens."""
    run, text = tmp_path / "run", "to be or not to be"
    convert("from-hf", folder, run)
    config, tokenizer = read_record(TrainedModelOptions(load=str(run), device="cpu"))
    assert (config.data.begin_with_start_token, config.data.start_token) == (True, "begin")
    row, place = prompt_rows_of(config, tokenizer).arrange(tokenizer.encode(text))
    batch = batch_of(random_sequences(1, LENGTH, vocabulary_size=WORDS))
    batch.tokens.copy_(torch.from_numpy(row.tokens))
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    assert place == ids.shape[1] - 1
    with torch.no_grad():
        expected = theirs(ids).logits[0, -1]
    assert torch.allclose(logits_of_ours(run, batch)[0, place], expected, rtol=1e-5, atol=1e-5)

    # The same run from an export, which says it of itself; and none where the tokenizer begins no texts.
    convert("to-hf", run, tmp_path / "back")
    convert("from-hf", tmp_path / "back", tmp_path / "again")
    again, _ = read_record(TrainedModelOptions(load=str(tmp_path / "again"), device="cpu"))
    assert again.data.start_token == "begin" and again.data.begin_with_start_token
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps({**content, "post_processor": None}), "utf-8")
    convert("from-hf", folder, tmp_path / "bare")
    bare, _ = read_record(TrainedModelOptions(load=str(tmp_path / "bare"), device="cpu"))
    assert (bare.data.begin_with_start_token, bare.data.start_token) == (False, "pad")
    convert("to-hf", tmp_path / "bare", tmp_path / "bare_back")
    assert json.loads((tmp_path / "bare_back" / "config.json").read_text())["bos_token_id"] == 2
    left = transformers.AutoTokenizer.from_pretrained(tmp_path / "bare_back")
    assert left.bos_token_id == 2 and left(text)["input_ids"] == ids[0, 1:].tolist()


@pytest.mark.parametrize("named", [[0, 7], 5])
def test_of_other_tokens_than_the_tokenizers_a_warning_tells(named, folder, tmp_path, caplog):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": named}))
    convert("from-hf", folder, tmp_path / "run")
    said = "0 or 7" if isinstance(named, list) else "5"
    (warning,) = [line for line in caplog.messages if "config.json" in line]
    assert warning.startswith(f"warning: by config.json texts end with token {said} (eos_token_id), by the tokenizer ")
    assert warning.endswith("with 0 (</s>); a run goes by the tokenizer.")


def test_what_the_run_folder_says_of_itself(folder, tmp_path):
    convert("from-hf", folder, tmp_path / "run")
    manifest = read_manifest(tmp_path / "run" / "iter_0000000")
    assert lineage_line(manifest.contents.lineage) == "theirs (imported)"
    assert manifest.contents.progress.iteration == 0
    assert not [name for name in manifest.tensors if name.startswith("optimizer.")]
    config, tokenizer = read_record(TrainedModelOptions(load=str(tmp_path / "run"), device="cpu"))
    assert (config.architecture, config.objective) == ("causal_decoder", "full_lm")
    assert config.data.seq_length == LENGTH == config.model.max_position_embeddings
    assert tokenizer.vocabulary_size == WORDS and tokenizer.piece(100) == "<unused_100>"
    assert tokenizer.source == str(tmp_path / "run" / "tokenizer")
    assert "<unused" not in tokenizer.decode(tokenizer.encode("to be <unused_100>")[:2])
    assert 100 not in tokenizer.encode("to be <unused_100>")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["options"]["architecture"] == "causal_decoder"


def test_an_export_comes_back_with_its_past(folder, tmp_path):
    convert("from-hf", folder, tmp_path / "one", "--objective", "prefix_lm", "--seq-length", "16")
    convert("to-hf", tmp_path / "one", tmp_path / "two")
    card = (tmp_path / "two" / "README.md").read_text()
    assert "`LlamaForCausalLM`" in card and "made elsewhere: theirs" in card and 'from_pretrained("two")' in card
    assert card.rstrip().endswith("were not compared with those of the checkpoint.")
    convert("from-hf", tmp_path / "two", tmp_path / "three")
    one, three = (read_manifest(tmp_path / name / "iter_0000000").contents for name in ("one", "three"))
    assert three.lineage == one.lineage and three.run["objective"] == "prefix_lm"
    assert three.run["data"]["seq_length"] == 16


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_precisions(dtype, folder, tmp_path):
    convert("from-hf", folder, tmp_path / "run", "--dtype", dtype)
    config, _ = read_record(TrainedModelOptions(load=str(tmp_path / "run"), device="cpu"))
    assert (config.optimizer.bf16, config.optimizer.fp16) == (dtype == "bfloat16", dtype == "float16")
    convert("to-hf", tmp_path / "run", tmp_path / "back", "--max-shard-size", "1GB")
    was, now = tensors_of(folder), TensorFile(tmp_path / "back" / "model.safetensors")
    for name, tensor in was.items():
        assert torch.equal(now.read(name), tensor.to(getattr(torch, dtype)))
    assert transformers.AutoConfig.from_pretrained(tmp_path / "back").dtype == getattr(torch, dtype)


def test_float32_is_what_the_optimizer_has(folder, tmp_path):
    convert("from-hf", folder, tmp_path / "exact")
    convert("from-hf", folder, tmp_path / "rounded", "--dtype", "bfloat16")
    exact, rounded = (tmp_path / name / "iter_0000000" for name in ("exact", "rounded"))
    names = {name: entry.shape for name, entry in read_manifest(exact).tensors.items()}
    masters = CheckpointWeights(exact, read_manifest(exact), names)
    weights = CheckpointWeights(rounded, read_manifest(rounded), names)
    write_checkpoint(
        tmp_path / "rounded",
        replace(read_manifest(rounded).contents, progress=Progress(iteration=7)),
        [
            PlannedTensor(f"{place}{name}", dtype, shape)
            for place, dtype in (("", "bfloat16"), ("optimizer.state.param.", "float32"))
            for name, shape in names.items()
        ],
        [*(weights.read(name) for name in names), *(masters.read(name) for name in names)],
        max_shard_bytes=10**6,
        advance=lambda _: None,
    )
    was = tensors_of(folder)
    for words, expected in (
        ((), {name: tensor.bfloat16() for name, tensor in was.items()}),
        (("--dtype", "float32"), was),
        (("--dtype", "float32", "--load-iteration", "0"), {name: t.bfloat16().float() for name, t in was.items()}),
    ):
        save = tmp_path / "-".join(["out", *words])
        convert("to-hf", tmp_path / "rounded", save, *words)
        now = tensors_of(save)
        assert all(torch.equal(now[name], tensor) for name, tensor in expected.items())
        assert ("as the optimizer has them, of step 7" in (save / "README.md").read_text()) == (len(words) == 2)


def test_a_tokenizer_that_is_given(folder, sentencepiece_model, theirs, tmp_path):
    wide = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SIZES, "vocab_size": 1300}))
    wide.save_pretrained(tmp_path / "wide")
    assert refused("from-hf", tmp_path / "wide", tmp_path / "run") == (
        f"--load {tmp_path / 'wide'} holds no tokenizer; give --tokenizer-type and --tokenizer-model of the one that "
        "the model was trained with.",
    )
    assert len(refused("from-hf", tmp_path / "wide", tmp_path / "run", "--objective", "full_ml")) == 2
    given = ("--tokenizer-model", str(sentencepiece_model))
    convert("from-hf", tmp_path / "wide", tmp_path / "run", *given)
    manifest = read_manifest(tmp_path / "run" / "iter_0000000")
    assert manifest.contents.tokenizer["vocabulary_size"] == 1000
    assert manifest.tensors["embedding.word_embeddings.weight"].shape[0] >= 1300
    batch = batch_of(random_sequences(2, LENGTH, vocabulary_size=1000))
    with torch.no_grad():
        expected = wide(batch.tokens).logits[..., :1000]
    assert torch.allclose(logits_of_ours(tmp_path / "run", batch), expected, rtol=1e-5, atol=1e-5)
    (fault,) = refused("from-hf", folder, tmp_path / "other", *given)
    assert fault.startswith(f"--tokenizer-model {sentencepiece_model} has 1000 ids and the model {WORDS} words;")


def test_what_cannot_be_is_told_before_anything_is_written(folder, tmp_path):
    run, new = tmp_path / "run", tmp_path / "new"
    convert("from-hf", folder, run)
    assert refused("from-hf", folder, new, "--objective", "full_ml") == (
        "--objective full_ml is not one of causal_decoder; did you mean full_lm? It takes: full_lm, prefix_lm, "
        "span_corruption, ul2, fill_in_the_middle, multitask.",
    )
    assert "no --normalization RMSNorm" in refused("to-hf", run, new, "--family", "gpt2")[0]
    assert refused("to-hf", run, new, "--load-iteration", "3") == (
        f"--load-iteration 3: {run} has no such checkpoint.",
    )
    assert refused("from-hf", folder, new, "--seq-length", "25")[0].startswith("--max-position-embeddings 24 is less")
    assert "sentinels" in " ".join(refused("from-hf", folder, new, "--objective", "span_corruption"))
    assert "holds no complete checkpoint" in refused("to-hf", folder, new)[0]
    assert "has no config.json" in refused("from-hf", run, new)[0]
    with pytest.raises(UserError, match=f"--save {run} is not empty"):
        main(["to-hf", "--load", str(run), "--save", str(run)])


def test_a_comparison_that_cannot_be_is_told_before_anything_is_written(folder, tmp_path, monkeypatch):
    run, new = tmp_path / "run", tmp_path / "new"
    convert("from-hf", folder, run)
    (tmp_path / "short.txt").write_text("a")

    def refusals():
        for direction, load in (("to-hf", run), ("from-hf", folder)):
            with pytest.raises(UserError) as raised:
                main([direction, "--load", str(load), "--save", str(new), "--verify-text", str(tmp_path / "short.txt")])
            assert not new.exists() and not new.with_name("new.unfinished").exists()
            yield from raised.value.faults

    assert all(fault.startswith("--verify-text has 1 tokens") for fault in refusals())

    def too_old():
        raise UserError("an old torch")

    monkeypatch.setattr("megatron.device.device.require_supported_versions", too_old)
    assert [*refusals()] == ["an old torch", "an old torch"]


def test_a_damaged_checkpoint_leaves_nothing_behind(folder, tmp_path):
    convert("from-hf", folder, tmp_path / "run")
    (shard,) = (tmp_path / "run" / "iter_0000000").glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    (fault,) = refused("to-hf", tmp_path / "run", tmp_path / "new")
    assert fault.startswith(f"{shard} is damaged: the bytes of ")


def test_the_command_line_is_answered_at_once(tmp_path):
    with pytest.raises(UserError, match=r"to-fh is not known; did you mean to-hf\? Known: to-hf, from-hf, verify"):
        main(["to-fh"])
    for words in ([], ["--load", "x"]):
        with pytest.raises(UserError, match="say first what to do \\(to-hf, from-hf, verify\\), as in"):
            main(words)
    with pytest.raises(UserError) as raised:
        main(["to-hf", "--load", "nowhere", "--family", "lama", "--max-shard-size", "5 gigs"])
    assert raised.value.faults == (
        "--save is missing; name the folder to write.",
        "--max-shard-size 5 gigs is not a size such as 500MB or 5GB.",
        "--load nowhere is not a folder; check the path. Nothing is fetched: models are downloaded before.",
    )
    with pytest.raises(UserError) as raised:
        main(["from-hf", "--load", str(tmp_path), "--save", str(tmp_path / "x"), "--family", "lama"])
    assert raised.value.faults[0].startswith("--family lama is not known; did you mean llama?")
    with pytest.raises(UserError, match="--tokenizer-type has no effect without --tokenizer-model; leave it out"):
        main(
            [
                *("from-hf", "--load", str(tmp_path), "--save", str(tmp_path / "x")),
                *("--tokenizer-type", "SentencePieceTokenizer"),
            ]
        )


@pytest.mark.parametrize("words", [["--help"], ["to-hf", "--help"], ["from-hf", "-h"], ["verify", "-h"]])
def test_help(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    shown = capsys.readouterr().out
    assert "--load" in shown and ("--objective" in shown) == (words[0] not in ("to-hf", "verify"))
    assert ("--hf FOLDER" in shown) == (words[0] in ("--help", "verify")) and "--tolerance" in shown
