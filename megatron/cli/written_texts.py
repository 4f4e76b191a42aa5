"""Texts that a model has written, cut where they were to end, and printed or put into a file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from megatron.basics.atomic_files import raise_for_disk
from megatron.evaluation.options import GenerationOptions
from megatron.evaluation.stop_texts import StopTexts
from megatron.tokenization.tokenizer import Tokenizer

SEPARATOR = "-" * 8


class WrittenTexts:
    """Ends texts at --stop, and hands them over portion by portion."""

    def __init__(self, options: GenerationOptions, tokenizer: Tokenizer, end_token: int) -> None:
        decode = tokenizer.decode_with_special if options.special_tokens else tokenizer.decode
        self._stops, self._end_token = StopTexts(options.stop, decode), end_token
        self.has_ended = self._stops.has_ended
        self._path = Path(options.output_path) if options.output_path else None
        self._has_printed = False

    def hand_over(
        self, texts: Sequence[str], prompts: Sequence[Sequence[int]], new_tokens: Sequence[Sequence[int]]
    ) -> None:
        """Print each prompt's text with what was written behind it, or add a line of JSON for each to the file."""
        lines = []
        for given, prompt, new in zip(texts, prompts, new_tokens, strict=True):
            text, is_stopped = self._stops.written(prompt, new)
            if self._path is None:
                print(f"{SEPARATOR}\n{given}{text}" if self._has_printed else given + text, flush=True)
                self._has_printed = True
                continue
            ended_by = "end of text" if new[-1] == self._end_token else "length"
            record = {
                "prompt": given,
                "text": text,
                "tokens": len(new),
                "ended_by": "stop" if is_stopped else ended_by,
            }
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        if self._path is not None:
            _append(self._path, "".join(lines).encode())


def _append(path: Path, content: bytes) -> None:
    """Add to the end of a file, durably; what a full disk took of it goes again. Raises UserError."""
    size = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            size = file.seek(0, os.SEEK_END)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if size is not None:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
        raise_for_disk(error, path)
