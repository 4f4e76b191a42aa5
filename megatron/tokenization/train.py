"""Training a SentencePiece vocabulary with the special tokens that every objective here needs.

Order of the ids: pad 0, end 1, unknown 2 (T5's), mask 3, classification 4, separator 5, 256 bytes, pieces, then
fill-in-the-middle and mode tokens where they are asked for, and last 100 sentinels from <extra_id_99> up to
<extra_id_0>, the highest id of all.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable, Iterator

import sentencepiece

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError
from megatron.tokenization.options import TrainTokenizerOptions
from megatron.tokenization.special_tokens import (
    CLASSIFICATION,
    END,
    MASK,
    NAMES_TO_ADD,
    PAD,
    SEPARATOR,
    UNKNOWN,
    in_order_of_ids,
)
from megatron.tokenization.tokenizer import cut_before_spaces

LINE_CHARACTERS = 4000
LONGEST_UTF8 = 4
# The trained scores depend on how many threads sum them, so this is no option: the same text gives the same model.
THREADS = 16
CONTROL_PIECE = 3  # ModelProto.SentencePiece.Type.CONTROL


def train_tokenizer(texts: Iterable[str], options: TrainTokenizerOptions) -> bytes:
    """The content of a .model file, learnt from the lines of `texts`.

    Special tokens are control symbols: no text is ever encoded to one. Bytes stand in for characters without a token.
    Raises UserError when the vocabulary is too large or too small for the text, or there is no text; errors of the
    iterator come through.
    """
    model = io.BytesIO()
    lines = _Lines(texts)
    behind = _names_behind_the_pieces(options)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=options.model_type,
            vocab_size=options.vocab_size - len(behind),
            character_coverage=options.character_coverage,
            normalization_rule_name=options.normalization,
            split_digits=options.split_digits,
            input_sentence_size=options.max_lines,
            shuffle_input_sentence=True,
            max_sentence_length=LINE_CHARACTERS * LONGEST_UTF8,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            pad_piece=PAD,
            eos_piece=END,
            unk_piece=UNKNOWN,
            control_symbols=[MASK, CLASSIFICATION, SEPARATOR],
            byte_fallback=True,
            # Indentation is part of a text; T5's rules would make one space of it.
            remove_extra_whitespaces=options.normalization.startswith("nmt"),
            allow_whitespace_only_pieces=True,
            num_threads=THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        if lines.error is not None:
            raise lines.error from None
        raise UserError(_explain(str(error), options.vocab_size, len(behind))) from error
    return with_control_pieces(model.getvalue(), behind, options.vocab_size)


def train_to_files(texts: Iterable[str], options: TrainTokenizerOptions) -> None:
    """Train and write PREFIX.model and PREFIX.vocab, a line with piece and score for each id: both or neither.

    Raises UserError as `train_tokenizer` does, and before any text is read where PREFIX cannot be written.
    """
    with (
        atomic_writer(f"{options.output_prefix}.model") as model_file,
        atomic_writer(f"{options.output_prefix}.vocab", "w") as vocabulary_file,
    ):
        model = train_tokenizer(texts, options)
        model_file.write(model)
        model_file.flush()  # a full disk shows before the other file is renamed
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        for token in range(processor.get_piece_size()):
            vocabulary_file.write(f"{processor.id_to_piece(token)}\t{processor.get_score(token):g}\n")


def with_control_pieces(model: bytes, names: Iterable[str], vocabulary_size: int) -> bytes:
    """A model with control symbols behind its pieces; the trainer itself puts all special tokens first.

    A serialized protobuf message grows by appending: repeated fields (the pieces) go on, single ones are replaced.
    """
    trainer_spec = b"\x20" + _varint(vocabulary_size)  # field 4: vocab_size
    return model + b"".join(map(_piece, names)) + b"\x12" + _varint(len(trainer_spec)) + trainer_spec


def _names_behind_the_pieces(options: TrainTokenizerOptions) -> list[str]:
    """In the order of their ids, sentinels last."""
    kinds = [kind for kind in reversed(NAMES_TO_ADD) if kind == "sentinels" or kind in options.special_tokens]
    return [name for kind in kinds for name in in_order_of_ids(kind, NAMES_TO_ADD[kind])]


class _Lines:
    """The non-empty lines of texts, cut to what the trainer takes.

    The trainer turns an error of its iterator into one of its own, so the first is kept in `error`.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.error: Exception | None = None
        self._texts = texts

    def __iter__(self) -> Iterator[str]:
        try:
            for text in self._texts:
                for line in text.split("\n"):
                    if line and not line.isspace():
                        yield from cut_before_spaces(line, LINE_CHARACTERS)
        except Exception as error:
            self.error = error
            raise


def _explain(message: str, vocab_size: int, num_behind: int) -> str:
    """The trainer's message as a sentence about our flags."""
    if match := re.search(r"too high .*<= (\d+)", message):
        largest = int(match[1]) + num_behind
        return f"--vocab-size {vocab_size} is too large for this text; use {largest} or less, or give more text."
    if match := re.search(r"required_chars\. \d+ vs (\d+)", message):
        smallest = int(match[1]) + num_behind
        return (
            f"--vocab-size {vocab_size} is too small for the characters of this text; use {smallest} or more, or a "
            "lower --character-coverage."
        )
    if "sentences_.empty()" in message:
        return "--input holds no text to learn from, so nothing was written."
    return f"the vocabulary could not be trained: {message}."


def _piece(name: str) -> bytes:
    """ModelProto.pieces (field 1) with one entry: piece (field 1), score 0 (field 2), type (field 3)."""
    content = b"\x0a" + _varint(len(name)) + name.encode() + b"\x15" + struct.pack("<f", 0.0)
    content += b"\x18" + _varint(CONTROL_PIECE)
    return b"\x0a" + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
