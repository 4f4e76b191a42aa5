"""README.md of an exported folder: what the model is, what it was trained on, how to load it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError
from megatron.conversion.export import ExportPlan
from megatron.conversion.provenance import Provenance

CARD = "README.md"
VERDICT = "## Comparison with the source"
SECTION = re.compile(rf"^{VERDICT}[ \t]*$.*?(?=^##? |\Z)", re.MULTILINE | re.DOTALL)
KINDS = {
    "causal_decoder": "A causal decoder",
    "prefix_decoder": "A prefix decoder",
    "encoder_decoder": "An encoder-decoder",
}
NOT_COMPARED = "Not verified: the logits of this folder were not compared with those of the checkpoint."


def write_card(folder: Path, name: str, plan: ExportPlan, provenance: Provenance, *, from_masters: bool) -> None:
    """Write the card of a model called `name`; it says that nothing was compared, until `write_verdict` does."""
    parts = [
        _front_matter(plan),
        f"# {name}",
        _what_it_is(plan, provenance, from_masters),
        "## Training",
        _lineage(provenance),
        "## Use",
        _use(name, plan),
        VERDICT,
        NOT_COMPARED,
    ]
    with atomic_writer(folder / CARD, "w") as file:
        file.write("\n\n".join(parts) + "\n")


def write_verdict(folder: Path, text: str) -> None:
    """Put `text` in the card under its heading, instead of what stands there; all else stays as people have written it.

    Raises UserError for a card that cannot be read.
    """
    path = folder / CARD
    try:
        card = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"{path} cannot be read: {reason}.") from error
    section = SECTION.search(card)
    before, behind = (card[: section.start()], card[section.end() :]) if section else (card.rstrip() + "\n\n", "")
    with atomic_writer(path, "w") as file:
        file.write(before + "\n\n".join([VERDICT, text.strip(), behind]).rstrip() + "\n")


def _front_matter(plan: ExportPlan) -> str:
    task = "text2text-generation" if _reads_with_an_encoder(plan) else "text-generation"
    return f"---\nlibrary_name: transformers\npipeline_tag: {task}\ntags:\n- triarch\n---"


def _what_it_is(plan: ExportPlan, provenance: Provenance, from_masters: bool) -> str:
    described = plan.choice.described
    sentences = [
        f"{KINDS[provenance.architecture]} of {plan.parameters:,} parameters, exported by Triarch as a "
        f"`{plan.choice.family.class_name}`.",
        f"{described.vocabulary_size:,} words, rows of {provenance.seq_length:,} tokens in training.",
        f"Weights in {described.dtype}{', as the optimizer has them' if from_masters else ''}"
        f"{f', of step {provenance.iteration:,}' if provenance.iteration else ''}.",
    ]
    if plan.choice.reads_causally:
        sentences.append(
            "It was trained to read its inputs bidirectionally. The class of this folder reads them from left to "
            "right, with the same weights: expect other, usually worse, predictions."
        )
    return "\n".join(sentences)


def _lineage(provenance: Provenance) -> str:
    """The stages as a table, oldest first."""
    rows = ["| architecture | objective | tokens | of them predicted |", "|---|---|---|---|"]
    return "\n".join([*rows, *map(_row, _stages(provenance))])


def _stages(provenance: Provenance) -> Iterator[Mapping[str, Any]]:
    """Those in which something was learnt; forms that a checkpoint went through without a step are left out."""
    for stage in provenance.lineage:
        if stage["tokens"] or stage.get("imported"):
            yield stage


def _row(stage: Mapping[str, Any]) -> str:
    architecture, objective = _plain(stage["architecture"]), _plain(stage["objective"])
    if stage.get("imported"):
        return f"| {architecture} | made elsewhere: {_plain(str(stage['imported']))} | unknown | unknown |"
    return f"| {architecture} | {objective} | {stage['tokens']:,} | {stage['loss_tokens']:,} |"


def _plain(text: str) -> str:
    """A name from elsewhere, without what Markdown would read as its own."""
    return re.sub(r"[^\w.@/ -]", "_", text)


def _use(name: str, plan: ExportPlan) -> str:
    auto = "AutoModelForSeq2SeqLM" if _reads_with_an_encoder(plan) else "AutoModelForCausalLM"
    own = ", trust_remote_code=True" if plan.choice.family.files else ""
    lines = [
        "```python",
        f"from transformers import {auto}, AutoTokenizer",
        "",
        # transformers looks into the config for a tokenizer, too, and asks before it runs a class that stands there.
        f'tokenizer = AutoTokenizer.from_pretrained("{name}"{own})',
        f'model = {auto}.from_pretrained("{name}"{own})',
        "```",
        "",
        _zero_shot(name, plan, own.replace(", ", ",")),
    ]
    if plan.choice.family.files:
        lines.append(
            f"The class is in {', '.join(f'`{file}`' for file in plan.choice.family.files)} beside the weights."
        )
    lines += _reading(plan)
    return "\n".join(lines)


def _zero_shot(name: str, plan: ExportPlan, own: str) -> str:
    """The command that scores the model; own: what it has to be told of a class in the folder."""
    model = plan.choice.described.model
    if _reads_with_an_encoder(plan) and model.untie_embeddings_and_output_weights and not plan.copies:
        return (
            f"Zero-shot tasks: Triarch's `tools/evaluate.py --hf {name} --tasks arc_easy boolq`. `lm_eval --model hf` "
            "would tie the head to the table of words, and score another model."
        )
    return (
        f"Zero-shot tasks: `lm_eval --model hf --model_args pretrained={name}{own} --tasks arc_easy,boolq`, with "
        "`--device cpu` where there is no GPU."
    )


def _reading(plan: ExportPlan) -> Iterator[str]:
    """What callers must know of prompts."""
    described = plan.choice.described
    if plan.copies:
        names = ", ".join(f"`{name}`" for pair in plan.copies for name in pair.theirs)
        yield (
            f"The table of words stands here once more as {names}, because its class would tie the head to it as well. "
            "Training that changes the three apart makes another model of it."
        )
    if described.begins_with_start_token:
        yield "Texts begin with the start token, which the tokenizer puts in front of them."
    if described.reads_prompts_both_ways:
        yield (
            "`generate` reads a prompt both ways, as in training: each of its tokens sees all of it. `forward` reads "
            "from left to right unless `prefix_lengths` or `token_type_ids` say what the prompt is; so `lm_eval` "
            "writes behind prompts that are read both ways, and scores answers behind contexts that are read from left "
            "to right. Triarch's own `tools/evaluate.py --load` scores behind contexts that are read both ways."
        )
    if described.ends_inputs and not _reads_with_an_encoder(plan):
        yield "Inputs ended with the end token in training, and the tokenizer does not add it: put it behind a prompt."


def _reads_with_an_encoder(plan: ExportPlan) -> bool:
    return plan.choice.described.architecture == "encoder_decoder"
