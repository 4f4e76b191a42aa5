"""tools/evaluate.py on many processes: the results of one process, and an end where ranks read different tasks."""

import json
from pathlib import Path

import pytest
from conftest import WORDS, TinyCorpus
from launch import first_traceback, torchrun
from task_files import write_task
from trainer import Trainer

TENSOR, PIPELINE = ["--tensor-model-parallel-size", "2"], ["--pipeline-model-parallel-size", "2"]
ARCHITECTURES = ("causal_decoder", "prefix_decoder", "encoder_decoder")
LAYOUTS = {  # by the number of processes; those that are left hold copies of the model
    2: dict(zip(ARCHITECTURES, (TENSOR, PIPELINE, []), strict=True)),
    4: dict(zip(ARCHITECTURES, (PIPELINE, TENSOR, [*TENSOR, *PIPELINE]), strict=True)),
}
TASK = """\
task: {name}
dataset_path: someone/{name}
output_type: {kind}
validation_split: validation
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
"""
KINDS = {
    "choices": ("multiple_choice", 'doc_to_choice: "{{choices}}"\nmetric_list: [{metric: acc}, {metric: acc_norm}]'),
    "texts": ("loglikelihood_rolling", "metric_list: [{metric: bits_per_byte}, {metric: word_perplexity}]"),
    "writing": (
        "generate_until",
        'generation_kwargs: {until: ["over"], max_gen_toks: 6}\nmetric_list: [{metric: exact_match}, {metric: chrf}]',
    ),
}
TEXT = " ".join(WORDS)
TEMPLATES = """\
dataset: words
templates:
  ask: !Template
    id: ask
    name: ask
    jinja: "{{ question }} ||| {{ choices[answer] }}"
    answer_choices: "{{ choices | join('|||') }}"
    reference: ""
    metadata: !TemplateMetadata {original_task: true, choices_in_prompt: false, metrics: [Accuracy]}
  write: !Template
    id: write
    name: write
    jinja: "What is behind {{ question }}? ||| {{ choices[answer] }}"
    answer_choices: null
    reference: ""
    metadata: !TemplateMetadata {original_task: true, choices_in_prompt: false, metrics: [Squad, ROUGE]}
"""
T0_TASKS = "tasks: [{name: words, path: words, split: validation, prompts: 2, random: 1/4}]"


def write_tasks(folder: Path) -> None:
    """Tasks of every kind, and their data for every rank.

    Rank 1 has one example less of each in `other`, and in `lack` one task less and another word in prompts of T0-Eval.
    """
    words = TEXT.split()
    choices = [
        {"question": " ".join(words[:at]), "choices": [*words[at : at + 3], f"{words[at]} or"], "answer": at % 4}
        for at in range(1, 17)
    ]
    examples = {
        "choices": choices,
        "texts": [{"question": "", "answer": TEXT[start:] * 3} for start in range(5)],
        "writing": [{"question": " ".join(words[at : at + 4]), "answer": words[at + 4]} for at in range(7)],
    }
    (folder / "tasks").mkdir()
    (folder / "templates" / "words").mkdir(parents=True)
    (folder / "templates" / "words" / "templates.yaml").write_text(TEMPLATES)
    (folder / "t0.yaml").write_text(T0_TASKS)
    for name, (kind, more) in KINDS.items():
        (folder / "tasks" / f"{name}.yaml").write_text(TASK.format(name=name, kind=kind, more=more))
        for place in ("data", *(f"{kind}{rank}" for kind in ("other", "lack") for rank in range(4))):
            if (place, name) == ("lack1", "texts"):
                continue
            own = examples[name][: -1 if place == "other1" else None]
            path = folder / place / name / "validation.jsonl"
            path.parent.mkdir(parents=True)
            path.write_text("".join(json.dumps(example) + "\n" for example in own))
    for place in ("data", *(f"{kind}{rank}" for kind in ("other", "lack") for rank in range(4))):
        (folder / place / "words").mkdir()
        own = [*choices[:-1], {**choices[-1], "question": "another"}] if place == "lack1" else choices
        lines = (json.dumps(example) + "\n" for example in own)
        (folder / place / "words" / "validation.jsonl").write_text("".join(lines))


def finetuned_on_words(folder: Path, corpus: TinyCorpus, trainer: Trainer) -> Path:
    """A run that was trained further on prompts of the data set that T0-Eval asks about, and of another one."""
    run = folder / "run_finetuned"
    tasks = [write_task(corpus, folder / name, 20) for name in ("words", "others")]
    told = {"data_path": " ".join(["1", tasks[0], "1", tasks[1]]), "split": "1,0,0", "train_iters": 2, "save": run}
    told |= {"load": folder / "run_causal_decoder", "global_batch_size": 2, "eval_iters": 0, "device": "cpu"}
    flags = [[f"--{name.replace('_', '-')}", *str(value).split()] for name, value in told.items()]
    trainer.finish([word for words in flags for word in words], architecture="finetune_t0")
    return run


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def folder(request, tiny_corpus, trainer, tmp_path_factory):
    """Reports of every architecture, of one process and of many."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_tasks(folder)
    jobs = []
    for architecture, layout in LAYOUTS[request.param].items():
        run, objective = folder / f"run_{architecture}", "full_lm" if architecture == "causal_decoder" else "prefix_lm"
        flags = tiny_corpus.flags(train_iters=8, save=run, lr=1e-2, objective=objective, hidden_dropout=0.0)
        trainer.finish(flags, architecture=architecture)
        words = ["--load", str(run), "--tasks", *KINDS, "--include-path", str(folder / "tasks"), "--device", "cpu"]
        words += ["--data-dir", str(folder / "data"), "--micro-batch-size", "2"]
        words += ["--t0-eval", "--templates", str(folder / "templates"), "--t0-tasks", str(folder / "t0.yaml")]
        for name, more in ((f"{architecture} alone", []), (architecture, layout)):
            report = ["--output-path", str(folder / name)]
            job = {"alone": name != architecture, "answers": str(folder / "answers"), "study": []}
            jobs.append(job | {"words": [*words, *report, *more]})
    trained = ["--load", str(finetuned_on_words(folder, tiny_corpus, trainer)), *words[2:]]
    jobs.append({**jobs[0], "words": [*trained, "--output-path", str(folder / "finetuned")]})
    for place in ("other", "lack"):
        (folder / place).mkdir()
        elsewhere = [str(folder / place) + "{rank}" if word == str(folder / "data") else word for word in words]
        job = {"alone": False, "answers": str(folder / place), "study": [*KINDS] if place == "lack" else []}
        if job["study"]:  # whose tasks may be missing
            elsewhere[elsewhere.index("--tasks") : elsewhere.index("--include-path")] = ["--eai-eval"]
        jobs.append(job | {"words": [*elsewhere, "--output-path", str(folder / "none")]})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = torchrun(Path(__file__).with_name("evaluate_worker.py"), str(folder / "jobs.json"), ranks=request.param)
    assert done.returncode == 0, first_traceback(done.stderr)
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layout_has_the_results_of_one_process(folder, architecture):
    alone, shared = (
        json.loads((folder / name / "results.json").read_text()) for name in (f"{architecture} alone", architecture)
    )
    assert set(shared["results"]) == set(KINDS)
    for task, values in alone["results"].items():
        for metric, value in values.items():
            wanted = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
            assert shared["results"][task][metric] == wanted, (task, metric)
    places = ("tensor_model_parallel_size", "pipeline_model_parallel_size")
    assert {name: value for name, value in shared["triarch"].items() if name not in places} == {
        name: value for name, value in alone["triarch"].items() if name not in places
    }
    assert shared["triarch"]["random"] == {"choices": 0.25}
    assert shared["t0_eval"] == alone["t0_eval"]
    assert shared["t0_eval"]["trained_on"] == []  # but text
    prompts = {prompt["id"]: prompt["metrics"].keys() for prompt in shared["t0_eval"]["tasks"]["words"]["prompts"]}
    assert prompts == {
        "ask": {"accuracy", "accuracy_per_token"},
        "write": {"squad_exact_match", "f1", "rouge1", "rouge2", "rougeLsum"},
    }
    assert sorted(path.name for path in (folder / architecture).iterdir()) == [
        "results.html",
        "results.json",
        "results.md",
        "results.png",
        "t0_eval.png",
    ]


def test_a_task_that_a_run_was_trained_on_is_named(folder):
    results = json.loads((folder / "finetuned" / "results.json").read_text())
    assert results["t0_eval"]["trained_on"] == ["words"]
    assert "trained on their data sets: words" in (folder / "finetuned" / "results.md").read_text()


def test_ranks_that_read_different_tasks_end_with_a_sentence(folder):
    for place, sentence in (
        ("other", "rank 1 did not read the same tasks as rank 0; let all of them see the same --data-dir"),
        (
            "lack",
            "rank 1 differs from rank 0 in tasks, tasks without data, data of tasks, settings of tasks, "
            "prompts of T0-Eval; let all",
        ),
    ):
        answers = [path.read_text() for path in (folder / place).iterdir()]
        assert len(answers) >= 2 and len(set(answers)) == 1 and answers[0].startswith(sentence)
    assert not (folder / "none").exists()
