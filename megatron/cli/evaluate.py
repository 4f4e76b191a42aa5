"""The command that scores a trained model on tasks of lm-eval and on T0-Eval."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.basics.errors import UserError
from megatron.basics.option import Options
from megatron.cli.evaluation_report import report_in_the_way
from megatron.cli.file_checks import unwritable
from megatron.cli.flags import parse
from megatron.cli.run_config import world_size_from_environment
from megatron.cli.start_up import quiet_libraries
from megatron.cli.t0_eval import answer, encode_questions, read_questions, say_on_standard_error
from megatron.evaluation.eai_eval import EAI_TASKS
from megatron.evaluation.options import EvaluationOptions, ScoredModelOptions
from megatron.evaluation.results import T0_ENTRY

if TYPE_CHECKING:
    from megatron.checkpoint.load import Loaded
    from megatron.evaluation.answering_model import TrainedModel
    from megatron.evaluation.lm_eval_tasks import LoadedTasks
    from megatron.layout.grid import Grid

DESCRIPTION = "Score a trained model on tasks of lm-eval and T0-Eval; alone or under torchrun, on any layout."
SECTIONS: dict[str, type[Options]] = {"scored_model": ScoredModelOptions, "evaluation": EvaluationOptions}
NO_TASKS: dict[str, Any] = {"results": {}, "n-shot": {}}  # the form of lm-eval's results
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError and RunFault."""
    sections = parse(
        sys.argv[1:] if argv is None else argv,
        SECTIONS,
        description=DESCRIPTION,
        rules=(_model_is_there, _folders_are_there, _one_process_with_hf, _report_can_be_written),
    )
    model: ScoredModelOptions = sections["scored_model"]
    options: EvaluationOptions = sections["evaluation"]
    if options.data_dir is not None:
        os.environ.update(dict.fromkeys(OFFLINE, "1"))  # the libraries read it when they are imported
    quiet_libraries()
    if model.hf is not None:
        _report(_score_folder(model, options), options)
        return
    _score_run(model, options)


def _model_is_there(scored_model: ScoredModelOptions) -> Iterator[str]:
    """There is a folder to read."""
    flag, folder = ("--hf", scored_model.hf) if scored_model.hf else ("--load", scored_model.load)
    if not Path(str(folder)).is_dir():
        yield f"{flag} {folder} is not a folder; check the path."
    elif scored_model.hf and not (Path(scored_model.hf) / "config.json").is_file():
        yield f"--hf {folder} holds no config.json; give a folder that transformers or our export has written."


def _folders_are_there(evaluation: EvaluationOptions) -> Iterator[str]:
    """Data and tasks can be looked for."""
    named = [("--include-path", path) for path in evaluation.include_path]
    if evaluation.templates is not None:
        named.append(("--templates", evaluation.templates))
    if evaluation.data_dir is not None:
        named.append(("--data-dir", evaluation.data_dir))
    for flag, path in named:
        if not Path(path).is_dir():
            yield f"{flag} {path} is not a folder; check the path."


def _report_can_be_written(evaluation: EvaluationOptions) -> Iterator[str]:
    """The end of hours of work has a place."""
    if evaluation.output_path is not None:
        yield from unwritable("--output-path", evaluation.output_path)
        yield from report_in_the_way(evaluation.output_path)


def _one_process_with_hf(scored_model: ScoredModelOptions) -> Iterator[str]:
    """lm-eval's class is not started by torchrun here."""
    if scored_model.hf and world_size_from_environment() > 1:
        yield "--hf takes one process; start it without torchrun, or score the run itself with --load."


def _score_folder(model: ScoredModelOptions, options: EvaluationOptions) -> dict[str, Any]:
    """Results of an exported folder, by lm-eval's own class."""
    from megatron.cli.scored_folder import check_scored_folder
    from megatron.device.device import choose_device
    from megatron.evaluation.lm_eval_adapter import evaluate, exported_model
    from megatron.evaluation.lm_eval_answers import ExportedModel

    device = choose_device(model.device)  # lm-eval's own choice is CUDA, whether there is one or not
    folder = Path(str(model.hf))
    with_code = check_scored_folder(folder)
    tasks = _load_tasks(options)
    questions = read_questions(options, is_main=True) if options.t0_eval else None
    lm = exported_model(
        folder,
        runs_its_code=with_code,
        batch_size=options.micro_batch_size,
        device=device.torch_device.type,
        dtype=model.dtype,
    )
    exported = ExportedModel(lm)
    encoded = encode_questions(questions, exported) if questions else []
    results = evaluate(lm, tasks, **_settings(options)) if tasks else dict(NO_TASKS)
    if questions:
        results[T0_ENTRY] = answer(questions, encoded, exported, options.limit, say=say_on_standard_error)
    rule = "lm-eval's class hf"
    if lm.backend == "causal":
        rule += ", which scores answers behind contexts that are read from left to right"
    facts = {
        "name": folder.resolve().name,
        "checkpoint": str(folder),
        "dtype": model.dtype,
        "scoring_rule": rule,
    }
    return results | {"triarch": facts | _task_facts(options, tasks)}


def _score_run(model: ScoredModelOptions, options: EvaluationOptions) -> None:
    """Score a run of ours and write the report on the main rank. A collective."""
    from megatron.cli.trained_model import load_model, pinned, read_record
    from megatron.device.device import choose_device, require_supported_versions

    require_supported_versions()
    device = choose_device(model.device)
    import torch

    model = pinned(model)
    config, tokenizer = read_record(model)
    tasks = _load_tasks(options)
    beyond_us = tasks.sampling_faults() if tasks else []
    if beyond_us:
        raise UserError(*beyond_us)
    questions = read_questions(options, is_main=os.environ.get("RANK", "0") == "0") if options.t0_eval else None
    from megatron.cli.bound_model import bound_model
    from megatron.cli.run_record import starts_of
    from megatron.cli.trained_data_sets import training_prefixes
    from megatron.cli.wire import prompt_rows_of
    from megatron.evaluation.same_requests import require_same_work
    from megatron.layout import grid as grids

    prompt_rows = prompt_rows_of(config, tokenizer)
    grid = grids.initialise(config.layout, device)
    try:
        require_same_work(
            {
                "the checkpoint": model.load_iteration,
                "its settings": config.as_dict(),
                "flags": [model.dtype, *_settings(options).values()],
                **(tasks.outline() if tasks else {"tasks": []}),
                "prompts of T0-Eval": questions.outline if questions else [],
            },
            grid,
        )
        chunks, loaded = load_model(model, config, tokenizer, device, grid, dtype=getattr(torch, model.dtype))
        trained = bound_model(chunks, grid, device, tokenizer, prompt_rows, options.micro_batch_size)
        encoded = encode_questions(questions, trained) if questions else []
        results = _task_results(trained, tasks, options, grid) if tasks else dict(NO_TASKS)
        if questions:
            say = say_on_standard_error if grid.is_main else lambda _: None
            training = training_prefixes(loaded.contents, starts_of(Path(str(model.load))))
            results[T0_ENTRY] = answer(questions, encoded, trained, options.limit, training=training, say=say)
        if grid.is_main:
            facts = _run_facts(model, loaded, results.pop("scoring_rule", prompt_rows.rule))
            _report(results | {"triarch": facts | _task_facts(options, tasks)}, options)
        grids.wait_for_all()
    finally:
        grids.shut_down()


def _task_results(model: TrainedModel, tasks: LoadedTasks, options: EvaluationOptions, grid: Grid) -> dict[str, Any]:
    """lm-eval's results, and the rule by which whole texts are read, too. A collective."""
    from megatron.evaluation.lm_eval_adapter import TriarchLM, evaluate

    lm = TriarchLM(model.score, model.generate, model.tokenizer, model.prompt_rows, model.micro_batch_size)
    with nullcontext() if grid.is_main else contextlib.redirect_stderr(io.StringIO()):  # one set of bars
        results = evaluate(lm, tasks, **_settings(options))
    return results | {"scoring_rule": lm.scoring_rule}


def _load_tasks(options: EvaluationOptions) -> LoadedTasks | None:
    """The tasks that were asked for. Raises UserError for unknown names, and for named tasks without data."""
    if not (options.tasks or options.eai_eval):
        return None
    from megatron.evaluation.lm_eval_tasks import TaskShelf

    names = [*options.tasks, *(entry.task for entry in EAI_TASKS if options.eai_eval)]
    shelf = TaskShelf(
        names,
        options.include_path,
        None if options.data_dir is None else Path(options.data_dir),
        options.num_fewshot,
    )
    unknown = shelf.unknown(names)
    if unknown:
        raise UserError(*unknown)
    tasks = shelf.load(names)
    of_the_study = {entry.task for entry in EAI_TASKS} if options.eai_eval else set()
    named = [name for name in tasks.missing if name not in of_the_study or name in options.tasks]
    if named:
        raise UserError(
            *(f"--tasks {name} has no data: {shelf.looked_in(name, tasks.missing[name])}" for name in named)
        )
    if not tasks.specs:
        name, reason = next(iter(tasks.missing.items()))
        raise UserError(f"--eai-eval found data of none of its tasks; of {name}, {shelf.looked_in(name, reason)}")
    return tasks


def _settings(options: EvaluationOptions) -> dict[str, Any]:
    return {"limit": options.limit, "num_fewshot": options.num_fewshot, "batch_size": options.micro_batch_size}


def _run_facts(model: ScoredModelOptions, loaded: Loaded, rule: str) -> dict[str, Any]:
    """What the results say of the model."""
    from megatron.cli.run_record import lineage_line

    return {
        "name": Path(str(model.load)).resolve().name,
        "checkpoint": str(loaded.folder),
        "lineage": lineage_line(loaded.contents.lineage),
        "dtype": model.dtype,
        "scoring_rule": rule,
        "tensor_model_parallel_size": model.tensor_model_parallel_size,
        "pipeline_model_parallel_size": model.pipeline_model_parallel_size,
    }


def _task_facts(options: EvaluationOptions, tasks: LoadedTasks | None) -> dict[str, Any]:
    """What the results say of the tasks."""
    asked = {"eai_eval": options.eai_eval, "limit": options.limit}
    if tasks is None:
        return asked
    return asked | {
        "random": tasks.random_accuracies(),
        "missing": tasks.missing,
        "data": tasks.data,
        "data_sets": tasks.data_sets,
    }


def _report(content: Mapping[str, Any], options: EvaluationOptions) -> None:
    from megatron.cli.evaluation_report import write_report
    from megatron.evaluation.report import markdown
    from megatron.evaluation.results import Results

    run = Results(content["triarch"]["name"], content)
    if options.output_path is not None:
        write_report(Path(options.output_path), [run])
    print(markdown([run]), end="")  # last: who reads it may leave, as in `| head`
