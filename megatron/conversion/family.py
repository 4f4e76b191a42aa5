"""A family: what its config says in our words, which models of ours it can hold, and the rules of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from megatron.basics.errors import UserError
from megatron.basics.option import flag_of
from megatron.conversion.config_values import refuse_endless, wrong_values
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.rules import Rule
from megatron.modeling.options import ModelOptions

DROPOUTS = ("hidden_dropout", "attention_dropout")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Everything is data, so that what is exported and what is read back cannot differ.

    name: of --family. model_type, class_name: of config.json. architectures: of ours that it holds. fixed: settings of
    ModelOptions about which it has no choice. sizes: settings of ModelOptions by the config field that holds them.
    expected: config fields that must have this value, where they are there. choices, legal: settings of ModelOptions
    and config fields that must have one of these values. rules: of the tensors of a model. read: settings that take
    more than a field, from a config and the folder's tensor names; write: the inverse, more fields of the config.
    copies: tensors that may stand in a folder as copies of another one, by name. aliases: names of older folders, and
    what they are now. ignored: patterns of names of tensors that say nothing of the model. files: further files of an
    export, contents by name. architecture_field: the config field that says which of `architectures` a folder holds.
    """

    name: str
    model_type: str
    class_name: str
    architectures: tuple[str, ...]
    fixed: Mapping[str, Any]
    sizes: Mapping[str, str]
    expected: Mapping[str, Any]
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    legal: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    rules: Callable[[DescribedModel], tuple[Rule, ...]]
    read: Callable[[Mapping[str, Any], Collection[str]], dict[str, Any]]
    write: Callable[[DescribedModel], dict[str, Any]]
    positions: str = "max_position_embeddings"
    copies: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    architecture_field: str | None = None

    def faults(self, described: DescribedModel, *, by_name: bool = False) -> Iterator[str]:
        """One sentence for each thing about a model of ours that no folder of this family can say.

        by_name: --family named this one. A prefix decoder may then become a causal folder: its weights are the same,
        and it reads its inputs from left to right there.
        """
        becomes_causal = by_name and self.holds_as_causal(described)
        if described.architecture not in self.architectures and not becomes_causal:
            kind = described.architecture
            article = "an" if kind[0] in "aeiou" else "a"
            yield f"--family {self.name} holds {', '.join(self.architectures)}, and this is {article} {kind}."
            return
        model = described.canonical_model()
        for name, value in self.fixed.items():
            own = getattr(model, name)
            if own != value:
                yield f"--family {self.name} has no {_setting(name, own)}; its models have {_setting(name, value)}."
        for name, values in self.choices.items():
            own = getattr(model, name)
            if own not in values:
                legal = ", ".join(map(str, values))
                yield f"--family {self.name} has no {_setting(name, own)}; its models have one of {legal}."

    def written_copies(self, described: DescribedModel) -> tuple[str, ...]:
        """Those of `copies` that an export has as well, because a class of transformers would not find them else."""
        return ()

    def holds_as_causal(self, described: DescribedModel) -> bool:
        """Whether a folder of this family would read a prefix decoder's inputs from left to right."""
        is_prefix_decoder = described.architecture == "prefix_decoder"
        return (
            is_prefix_decoder and "prefix_decoder" not in self.architectures and "causal_decoder" in self.architectures
        )

    def lost(self, described: DescribedModel) -> Iterator[str]:
        """A sentence for each dropout of a run that a folder of this family cannot say, or says otherwise."""
        config = self.config(described)
        kept = {ours: config[theirs] for ours, theirs in self.sizes.items()} | self.read(config, ())
        for name in DROPOUTS:
            own, other = getattr(described.model, name), kept.get(name, 0.0)
            if own != other:
                yield f"{_setting(name, own)} is not kept: a {self.name} that is trained on has {other} there."

    def remarks(self, config: Mapping[str, Any], described: DescribedModel) -> Iterator[str]:
        """A sentence for each field of a folder's own config that a run of `described` does not follow as it stands."""
        for name, value in self.config(described).items():
            if "drop" in name and config.get(name) not in (None, value):
                yield f"config.json: {name} {config[name]} becomes {value}, since one setting of a run has to say both."

    def config(self, described: DescribedModel) -> dict[str, Any]:
        """The content of config.json."""
        model = described.canonical_model()
        sizes = {theirs: getattr(model, ours) for ours, theirs in self.sizes.items()}
        return {
            "architectures": [self.class_name],
            "model_type": self.model_type,
            "vocab_size": described.vocabulary_size,
            "dtype": described.dtype,
            self.positions: described.max_positions,
            "bos_token_id": described.start_token,
            "eos_token_id": described.end_token,
            "pad_token_id": described.pad_token,
            **({self.architecture_field: described.architecture} if self.architecture_field else {}),
            **sizes,
            **self.expected,
            **self.write(described),
        }

    def describe(self, config: Mapping[str, Any], tensors: Collection[str]) -> DescribedModel:
        """The model that a config (with every field, as transformers fills it) and the names of its tensors describe.

        Raises UserError for every field that no model of ours can follow.
        """
        faults = [
            f"config.json: {name} {config[name]!r} has no counterpart; only {value!r} can be converted."
            for name, value in self.expected.items()
            if name in config and config[name] != value
        ]
        faults += [
            f"config.json: {name} {config.get(name)!r} has no counterpart; only "
            f"{' or '.join(repr(value) for value in values if value is not None)} can be converted."
            for name, values in self.legal.items()
            if config.get(name) not in values
        ]
        faults += wrong_values(config, self.sizes, self.positions)
        if faults:
            raise UserError(*faults)
        refuse_endless(config)
        sizes = {ours: config[theirs] for ours, theirs in self.sizes.items()}
        settings = {**self.fixed, **sizes, "make_vocab_size_divisible_by": 128, **self.read(config, tensors)}
        model = ModelOptions(**settings)
        architecture = config[self.architecture_field] if self.architecture_field else self.architectures[0]
        return DescribedModel(
            architecture=architecture,
            model=model,
            vocabulary_size=config["vocab_size"],
            max_positions=config[self.positions],
            begins_with_start_token=bool(config.get("begins_with_start_token")),
            reads_running_text=architecture == "prefix_decoder" and config.get("bidirectional_prompts") is False,
            start_token=_token(config, "bos_token_id"),
            end_token=_token(config, "eos_token_id"),
            pad_token=_token(config, "pad_token_id"),
            dtype=str(config.get("dtype") or "float32").removeprefix("torch."),
        )


def _token(config: Mapping[str, Any], name: str) -> int | None:
    """The id of a special token; the first of several, as those that end texts may be."""
    token = config.get(name)
    if isinstance(token, list):
        return token[0] if token else None
    return token


def _setting(name: str, value: Any) -> str:
    """A setting as it stands on a command line: `--activation gelu`, `--qk-layernorm`, `--qk-layernorm off`."""
    if isinstance(value, bool):
        return flag_of(name) if value else f"{flag_of(name)} off"
    return f"{flag_of(name)} {'unset' if value is None else value}"
