"""Where what a model writes is to end: at the first of some texts, which is cut off with all behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

TOKENS_BEFORE = 8  # decoded along, so that the first piece keeps its space and a character its bytes
TOKENS_OVER = 4  # a stop may begin and end within a token or a character

# stop(prompt, new tokens): the text has ended.
Stop = Callable[[Sequence[int], Sequence[int]], bool]


class StopTexts:
    """Judges token ids by the text that they make behind their prompt, while they are written and afterwards.

    texts: without empty ones; none at all stops nothing. decode: of a tokenizer. An empty prompt stands for new tokens
    that are a text of their own, whose first word has no space.
    """

    def __init__(self, texts: Sequence[str], decode: Callable[[Sequence[int]], str]) -> None:
        self._texts, self._decode = texts, decode
        # A token that shows makes at least one byte, so that so many hold a stop that the last of them completes.
        self._reach = max((len(text.encode()) for text in texts), default=0) + TOKENS_OVER

    def has_ended(self, prompt: Sequence[int], new_tokens: Sequence[int]) -> bool:
        """Whether a text that stops the model has just been completed; decodes as many tokens as that takes."""
        if not self._texts:
            return False
        first = max(len(new_tokens) - self._reach, 0)
        before = [*prompt[-TOKENS_BEFORE:], *new_tokens[max(first - TOKENS_BEFORE, 0) : first]]
        return self._place(self._behind(before, new_tokens[first:])) is not None

    def written(self, prompt: Sequence[int], new_tokens: Sequence[int]) -> tuple[str, bool]:
        """The text of new tokens up to the first that stops it, and whether there was one."""
        text = self._behind(prompt, new_tokens)
        place = self._place(text)
        return text[:place], place is not None

    def _behind(self, before: Sequence[int], tokens: Sequence[int]) -> str:
        """What tokens add to the text of those before them."""
        given = before[-TOKENS_BEFORE:]
        return self._decode([*given, *tokens])[len(self._decode(given)) :]

    def _place(self, text: str) -> int | None:
        return min((place for stop in self._texts if (place := text.find(stop)) >= 0), default=None)
