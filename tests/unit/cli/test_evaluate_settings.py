"""What tools/evaluate.py refuses, in one sentence each, before it imports a library; folders that --hf takes or not."""

import json
import os
import shutil

import pytest

from megatron.basics.errors import UserError
from megatron.cli.convert import main as convert
from megatron.cli.evaluate import OFFLINE, main
from tests.oracles.one_process_model import one_process_grid

SIZES = {
    "vocab_size": 258,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
TASK = """\
task: seas
dataset_path: someone/seas
validation_split: validation
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
"""
TEMPLATES = """\
dataset: seas
templates:
  ask: !Template
    id: ask
    name: ask
    jinja: "{{ question }} ||| {{ choices[answer] }}"
    answer_choices: "{{ choices | join('|||') }}"
    reference: ""
    metadata: !TemplateMetadata {original_task: true, choices_in_prompt: false, metrics: [Accuracy]}
"""
T0_TASKS = "tasks: [{name: seas, path: NAME, split: validation, prompts: 1, random: 1/3}]"
EXAMPLES = [{"question": "the sea is", "choices": ["wet", "dry", "a"], "answer": number} for number in range(3)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tasks", "copa"], "--load is missing"),
        (["--load", "RUN"], "--tasks is missing"),
        (["--load", "RUN", "--hf", "RUN", "--tasks", "copa"], "--load and --hf exclude each other"),
        (["--load", "nowhere", "--tasks", "copa"], "--load nowhere is not a folder"),
        (["--hf", "nowhere", "--tasks", "copa"], "--hf nowhere is not a folder"),
        (["--hf", "RUN", "--tasks", "copa"], "holds no config.json"),
        (["--hf", "RUN", "--tasks", "copa", "--load-iteration", "3"], "--load-iteration has no effect with --hf"),
        (["--load", "RUN", "--tasks", "copa", "--data-dir", "nowhere"], "--data-dir nowhere is not a folder"),
        (["--load", "RUN", "--tasks", "copa", "--include-path", "nowhere"], "--include-path nowhere is not a folder"),
        (["--load", "RUN", "--tasks", "copa", "--limit", "0"], "--limit 0"),
        (["--load", "RUN", "--tasks", "copa", "--output-path", __file__], "--output-path .* is not a folder"),
        (["--load", "RUN", "--eai-eval", "--num-fewshot", "5"], "excludes --eai-eval, which is zero-shot"),
        (["--load", "RUN", "--t0-eval"], "--templates is missing; --t0-eval takes a folder of templates"),
        (["--load", "RUN", "--t0-eval", "--templates", "nowhere"], "--templates nowhere is not a folder"),
        (["--load", "RUN", "--tasks", "copa", "--t0-tasks", "rte"], "--t0-tasks has no effect without --t0-eval"),
        (["--load", "RUN", "--t0-eval", "--templates", "RUN", "--num-fewshot", "5"], "no effect on --t0-eval"),
    ],
)
def test_wrong_settings_are_told(words, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        main([str(tmp_path) if word == "RUN" else word for word in words])


def test_a_folder_where_a_file_of_the_report_has_to_stand(tmp_path):
    (tmp_path / "results.png").mkdir()
    with pytest.raises(UserError, match=r"results\.png is a folder, where a file has to stand"):
        main(["--load", str(tmp_path), "--tasks", "copa", "--output-path", str(tmp_path)])


def test_an_exported_folder_takes_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="--hf takes one process"):
        main(["--hf", str(tmp_path), "--tasks", "copa"])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A task with its data, a Llama, and a prefix decoder with the modelling file of our exports."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    from megatron.conversion.modeling_files.modeling_triarch import TriarchConfig, TriarchForCausalLM
    from megatron.conversion.registry import FAMILIES

    one_process_grid()
    root = tmp_path_factory.mktemp("hf")
    (root / "seas.yaml").write_text(TASK)
    (root / "seas").mkdir()
    (root / "seas" / "validation.jsonl").write_text("".join(json.dumps(example) + "\n" for example in EXAMPLES))
    words = ["<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    fast = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="</s>", pad_token="<pad>")
    torch.manual_seed(0)
    settings = {"decoder_type": "prefix_decoder", "bidirectional_prompts": True, "head_dim": 8}
    for name, model in (
        ("causal", transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))),
        ("prefix", TriarchForCausalLM(TriarchConfig(**SIZES, **settings))),
    ):
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    classes = {"AutoConfig": "TriarchConfig", "AutoModelForCausalLM": "TriarchForCausalLM"}
    change(root / "prefix", "config.json", {"auto_map": {a: f"modeling_triarch.{c}" for a, c in classes.items()}})
    for name, text in FAMILIES["triarch_decoder"].files.items():
        (root / "prefix" / name).write_text(text)
    patch = pytest.MonkeyPatch()
    patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(root / "modules"))
    patch.syspath_prepend(str(root / "modules"))
    yield root
    patch.undo()


def change(folder, name, values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def score(root, folder, *words, flag="--hf"):
    place = ["--include-path", str(root), "--data-dir", str(root), "--device", "cpu"]
    main([flag, str(folder), "--tasks", "seas", *place, *words])


@pytest.fixture
def reports(monkeypatch):
    """What would be written, without the work of drawing it."""
    found = []
    monkeypatch.setattr("megatron.cli.evaluate._report", lambda content, _: found.append(content))
    return found


@pytest.mark.parametrize("name", ["causal", "prefix"])
def test_exported_folders_are_scored(name, root, reports, monkeypatch):
    for variable in OFFLINE:
        monkeypatch.delenv(variable, raising=False)
    score(root, root / name)
    (found,) = reports
    assert found["results"]["seas"]["acc,none"] == pytest.approx(1 / 3)
    assert found["triarch"]["checkpoint"] == str(root / name) and found["triarch"]["dtype"] == "float32"
    assert "from left to right" in found["triarch"]["scoring_rule"]
    # lm-eval asks this library for metrics that it has not itself.
    assert os.environ["HF_EVALUATE_OFFLINE"] == "1" == os.environ["HF_HUB_OFFLINE"]


def test_code_of_strangers_never_runs(root, tmp_path):
    """Whatever names it: another repository, a folder inside, the tokenizer; or transformers unasked."""
    mark = tmp_path / "it ran"
    hostile = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    for number, (place, named) in enumerate(
        (
            ("config.json", {"AutoConfig": "evil/repo--m.X", "AutoModelForCausalLM": "evil/repo--m.X"}),
            ("config.json", {"AutoConfig": "sub/evil.Evil", "AutoModelForCausalLM": "sub/evil.Evil"}),
            ("tokenizer_config.json", {"AutoTokenizer": ["evil.Evil", None]}),
            ("tokenizer_config.json", {}),
        )
    ):
        folder = shutil.copytree(root / "prefix", tmp_path / str(number))
        for path in ("sub/evil.py", "evil.py", *([] if named else ["custom_generate/generate.py"])):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(hostile)
        if named:
            change(folder, place, {"auto_map": named})
        with pytest.raises(UserError, match="names code of the folder's own" if named else "custom_generate would be"):
            score(root, folder)
    with (folder / "modeling_triarch.py").open("a") as file:
        file.write(hostile)
    with pytest.raises(UserError, match="is not the file that this version exports"):
        score(root, folder)
    assert not mark.exists()


def test_broken_folders_are_told(root, tmp_path):
    from safetensors.torch import load_file, save_file

    def refusal(name):
        with pytest.raises(UserError) as raised:
            score(root, tmp_path / name)
        return str(raised.value)

    for name in ("tokenizer", "unknown", "weights", "json"):
        shutil.copytree(root / "causal", tmp_path / name)
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    assert refusal("tokenizer").endswith("holds no tokenizer; put the one it was trained with beside its weights.")
    change(tmp_path / "unknown", "config.json", {"model_type": "nonsense"})
    assert "cannot be loaded by transformers" in refusal("unknown") and "nonsense" in refusal("unknown")
    path = tmp_path / "weights" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "q_proj" not in name}
    save_file(kept, path, metadata={"format": "pt"})
    assert "has no weights for model.layers.0.self_attn.q_proj.weight; download" in refusal("weights")
    (tmp_path / "json" / "config.json").write_text("{")
    assert "config.json cannot be read" in refusal("json")


@pytest.fixture
def run(root, tmp_path, monkeypatch):
    """The causal folder as a run in bfloat16, with checkpoints of iterations 0 and 3."""
    grid = one_process_grid()
    for name in ("initialise", "shut_down"):  # the groups are those of all tests of this process
        monkeypatch.setattr(f"megatron.layout.grid.{name}", lambda *_: grid)
    words = ["--load", str(root / "causal"), "--save", str(tmp_path / "run"), "--no-verify", "--dtype", "bfloat16"]
    convert(["from-hf", *words])
    shutil.copytree(tmp_path / "run" / "iter_0000000", tmp_path / "run" / "iter_0000003")
    return tmp_path / "run"


def test_results_name_the_checkpoint_that_was_scored(root, run, reports, monkeypatch):
    """Though the run goes on training meanwhile; and in float32, as --hf does, whatever it was trained in."""
    from megatron.checkpoint import load
    from megatron.cli import trained_model

    load_newest, load_model, formats = load.load_newest, trained_model.load_model, []

    def after_a_save(*arguments, **settings):
        shutil.copytree(run / "iter_0000003", run / "iter_0000005", dirs_exist_ok=True)
        return load_newest(*arguments, **settings)

    def watched(*arguments, **settings):
        chunks, loaded = load_model(*arguments, **settings)
        formats.append(str(next(chunks[0].parameters()).dtype))
        return chunks, loaded

    def facts(*words):
        score(root, run, *words, flag="--load")
        return reports.pop()["triarch"]

    monkeypatch.setattr(load, "load_newest", after_a_save)
    monkeypatch.setattr(trained_model, "load_model", watched)
    for words, name, dtype in (
        ((), "iter_0000003", "float32"),
        (("--load-iteration", "0", "--dtype", "bfloat16"), "iter_0000000", "bfloat16"),
    ):
        found = facts(*words)
        assert (found["checkpoint"], found["dtype"]) == (str(run / name), dtype)
        assert formats.pop() == f"torch.{dtype}"
    for path in (run / "iter_0000005").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(load, "load_newest", load_newest)
    with pytest.raises(UserError, match=r"iter_0000005.* is damaged: .*; name another checkpoint with --load-iter"):
        facts()


def test_the_report_is_there_before_it_is_printed(root, tmp_path, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("megatron.cli.evaluate.print", closed, raising=False)
    with pytest.raises(BrokenPipeError):
        score(root, root / "causal", "--output-path", str(tmp_path))
    assert len([*tmp_path.glob("results.*")]) == 4


@pytest.fixture
def t0_words(tmp_path):
    """Flags for T0-Eval of the task `seas`, whose choices take as much as is asked for."""

    def words(choices, name="seas"):
        folder = tmp_path / "t0"
        for path, text in (
            ("templates/seas/templates.yaml", TEMPLATES),
            ("tasks.yaml", T0_TASKS.replace("NAME", name)),
            ("data/seas/validation.jsonl", "".join(json.dumps({**one, "choices": choices}) + "\n" for one in EXAMPLES)),
        ):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        flags = ["--templates", str(folder / "templates"), "--t0-tasks", str(folder / "tasks.yaml")]
        return ["--t0-eval", *flags, "--data-dir", str(folder / "data"), "--device", "cpu"]

    return words


@pytest.mark.parametrize("flag", ["--hf", "--load"])
def test_prompts_of_t0_eval_are_checked_before_lm_eval_runs(flag, root, run, reports, t0_words, monkeypatch):
    folder = root / "causal" if flag == "--hf" else run
    from megatron.evaluation import lm_eval_adapter

    evaluate, ran = lm_eval_adapter.evaluate, []
    monkeypatch.setattr(lm_eval_adapter, "evaluate", lambda *a, **kw: ran.append(1) or evaluate(*a, **kw))
    words = [flag, str(folder), "--tasks", "seas", "--include-path", str(root)]
    with pytest.raises(
        UserError, match="3 of 3 examples cannot be scored, because example 0 has a choice of 41 tokens"
    ):
        main([*words, *t0_words(["long" * 10, "dry", "a"])])
    assert not ran and not reports
    main([*words, *t0_words(["wet", "dry", "a"])])
    assert ran and reports[0]["t0_eval"]["tasks"].keys() == {"seas"}
    assert reports[0]["t0_eval"]["trained_on"] is None  # weights from elsewhere, both


def test_tasks_of_a_file_of_one_s_own_have_to_be_there(root, t0_words):
    with pytest.raises(UserError, match=r"--t0-tasks .*tasks.yaml: seas cannot be scored: .* has no templates of sees"):
        main(["--hf", str(root / "causal"), *t0_words(["wet", "dry", "a"], "sees")])
