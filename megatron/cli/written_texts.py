"""Texts that a model has written, cut where they were to end, and printed or put into a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from megatron.basics.atomic_files import atomic_writer
from megatron.evaluation.options import GenerationOptions
from megatron.tokenization.tokenizer import Tokenizer

SEPARATOR = "-" * 8


class WrittenTexts:
    """Ends texts at --stop, and hands them over portion by portion."""

    def __init__(self, options: GenerationOptions, tokenizer: Tokenizer, end_token: int) -> None:
        self._stop, self._end_token = options.stop, end_token
        self._decode = tokenizer.decode_with_special if options.special_tokens else tokenizer.decode
        self._path = Path(options.output_path) if options.output_path else None
        self._lines: list[str] = []
        self._has_printed = False

    def has_ended(self, new_tokens: list[int]) -> bool:
        """Whether a text that stops the model is among what it wrote."""
        return bool(self._stop) and self._place_of_stop(self._decode(new_tokens), 0) is not None

    def hand_over(self, prompts: Sequence[Sequence[int]], new_tokens: Sequence[Sequence[int]]) -> None:
        """Print prompts with what was written behind them, or add a line of JSON for each to the file."""
        for prompt, new in zip(prompts, new_tokens, strict=True):
            given, text = self._decode(prompt), self._decode([*prompt, *new])
            end = self._place_of_stop(text, len(given))
            if self._path is None:
                print(f"{SEPARATOR}\n{text[:end]}" if self._has_printed else text[:end], flush=True)
                self._has_printed = True
                continue
            ended_by = "end of text" if new[-1] == self._end_token else "length"
            record = {
                "prompt": given,
                "text": text[len(given) : end],
                "tokens": len(new),
                "ended_by": ended_by if end is None else "stop",
            }
            self._lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        if self._path is not None:
            with atomic_writer(self._path, "w") as file:
                file.writelines(self._lines)

    def _place_of_stop(self, text: str, first: int) -> int | None:
        """Where the first of the texts that stop the model begins, at or behind `first`."""
        places = [place for stop in self._stop if (place := text.find(stop, first)) >= 0]
        return min(places, default=None)
