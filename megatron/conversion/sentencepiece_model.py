"""SentencePiece models as tokenizers of the `tokenizers` library, which every Hugging Face folder can hold.

The library is given the model's pieces and its normaliser; what SentencePiece does beside them is said in the library's
own steps. Sources: sentencepiece's normalizer.cc, unigram_model.cc, bpe_model.cc and sentencepiece_model.proto.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from megatron.basics.errors import UserError
from megatron.tokenization.sentencepiece_tokenizer import SPACE

UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType
NORMAL, UNKNOWN, USER_DEFINED, BYTE = 1, 2, 4, 6  # ModelProto.SentencePiece.Type
UNKNOWN_PENALTY = 10.0  # of both libraries, below the lowest score of a piece
USER_DEFINED_SCORE = -0.1  # SentencePiece's at encoding, whatever the file says: better than any usual piece


@dataclass(frozen=True)
class Piece:
    """An entry of a vocabulary; its id is its place. score: single precision. kind: ModelProto.SentencePiece.Type."""

    name: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePieceModel:
    """What a .model file says.

    charsmap: compiled rules of the normaliser, empty for none. adds_space: texts begin with a space. removes_spaces:
    spaces at both ends and repeated ones are dropped.
    """

    pieces: tuple[Piece, ...]
    kind: int
    unknown: int
    charsmap: bytes
    adds_space: bool
    removes_spaces: bool

    @classmethod
    def parse(cls, content: bytes, source: str) -> SentencePieceModel:
        """Of the content of a file that the library has read before.

        Raises UserError for kinds of models that the `tokenizers` library does not know.
        """
        from sentencepiece import sentencepiece_model_pb2  # loads protobuf

        model = sentencepiece_model_pb2.ModelProto.FromString(content)
        trainer, normalizer = model.trainer_spec, model.normalizer_spec
        if trainer.model_type not in (UNIGRAM, BPE):
            raise UserError(
                f"--tokenizer-model {source} is neither a unigram nor a bpe model; tokenizer.json cannot hold it."
            )
        if trainer.treat_whitespace_as_suffix or not normalizer.escape_whitespaces:
            raise UserError(
                f"--tokenizer-model {source} does not write spaces in front of words as {SPACE}; tokenizer.json cannot "
                "hold it."
            )
        return cls(
            pieces=tuple(Piece(piece.piece, piece.score, piece.type) for piece in model.pieces),
            kind=trainer.model_type,
            unknown=next(token for token, piece in enumerate(model.pieces) if piece.type == UNKNOWN),
            charsmap=normalizer.precompiled_charsmap,
            adds_space=normalizer.add_dummy_prefix,
            removes_spaces=normalizer.remove_extra_whitespaces,
        )

    @property
    def has_bytes(self) -> bool:
        """Whether characters without a piece become bytes."""
        return any(piece.kind == BYTE for piece in self.pieces)


def as_fast_tokenizer(model: SentencePieceModel, special: Collection[int]) -> FastTokenizer:
    """The same tokenizer without special tokens: no text is ever encoded to one of the ids in `special`.

    Nothing is put around texts.
    """
    hidden = {token for token, piece in enumerate(model.pieces) if piece.kind not in (NORMAL, USER_DEFINED)}
    hidden |= set(special)
    tokenizer = FastTokenizer(_unigram(model, hidden) if model.kind == UNIGRAM else _bpe(model, hidden))
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.removes_spaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    words: list[pre_tokenizers.PreTokenizer] = []
    if model.adds_space:
        # The step leaves out its space where one is; behind the normaliser none is left, so it always adds one.
        # A text that goes on behind a special token has its own space, unless the normaliser has removed it.
        scheme = "always" if model.removes_spaces else "first"
        words.append(pre_tokenizers.Metaspace(replacement=" ", prepend_scheme=scheme, split=False))
        words.append(pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=False))
    strangers = _characters_of_names_alone(model, hidden)
    if strangers:
        words.append(pre_tokenizers.Split(Regex(strangers), "isolated"))
    if words:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    tokenizer.decoder = _decoder(model)
    searched = [
        piece.name for token, piece in enumerate(model.pieces) if piece.kind == USER_DEFINED and token not in hidden
    ]
    if model.kind == BPE and searched:
        tokenizer.add_tokens([AddedToken(name, normalized=False, special=False) for name in searched])
    return tokenizer


def _unigram(model: SentencePieceModel, hidden: Collection[int]) -> models.Unigram:
    """Hidden pieces get a score at which any spelling by other pieces wins: the library has no other way to skip them.

    The penalty of unknown characters follows from the lowest score, but every path has the same number of those.
    """
    scores = [piece.score for token, piece in enumerate(model.pieces) if token not in hidden and piece.kind == NORMAL]
    lowest = min(scores, default=0.0)
    longest = max((len(model.pieces[token].name) for token in hidden), default=0)
    never = -math.ceil(abs(lowest) + (longest + 1) * (abs(lowest) + UNKNOWN_PENALTY))

    def score(token: int, piece: Piece) -> float:
        if token in hidden:
            return never
        if piece.kind == USER_DEFINED:
            return USER_DEFINED_SCORE
        return float(str(np.float32(piece.score)))  # few digits, which every reader of JSON gives back exactly

    vocabulary = [(piece.name, score(token, piece)) for token, piece in enumerate(model.pieces)]
    return models.Unigram(vocabulary, model.unknown, model.has_bytes)


def _bpe(model: SentencePieceModel, hidden: Collection[int]) -> models.BPE:
    """SentencePiece joins any two pieces whose whole is one, the whole with the highest score first."""
    vocabulary = {piece.name: token for token, piece in enumerate(model.pieces)}
    shown = {piece.name: piece.score for token, piece in enumerate(model.pieces) if token not in hidden}
    by_score = sorted(shown, key=lambda name: (-shown[name], vocabulary[name]))
    merges = [
        (name[:cut], name[cut:])
        for name in by_score
        for cut in range(1, len(name))
        if name[:cut] in shown and name[cut:] in shown
    ]
    return models.BPE(
        vocabulary,
        merges,
        unk_token=model.pieces[model.unknown].name,
        fuse_unk=True,
        byte_fallback=model.has_bytes,
    )


def _characters_of_names_alone(model: SentencePieceModel, hidden: Collection[int]) -> str:
    """A pattern of runs of characters without a piece, if names of hidden pieces have such characters; else "".

    Such a name would be found in text, as the rest of its spelling is unknown. Cut there it is not, and nothing else
    changes: no piece reaches across.
    """
    if model.kind != UNIGRAM:
        return ""
    letters = {piece.name for token, piece in enumerate(model.pieces) if token not in hidden and len(piece.name) == 1}
    inside = {letter for token, piece in enumerate(model.pieces) if token not in hidden for letter in piece.name}
    names = {letter for token in hidden for letter in model.pieces[token].name}
    if names <= letters or not inside <= letters:
        return ""
    return f"[^{''.join(re.escape(letter) for letter in sorted(letters))}]+"


def _decoder(model: SentencePieceModel) -> decoders.Decoder:
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " ")]
    if model.has_bytes:
        steps += [decoders.ByteFallback()]
    steps += [decoders.Fuse()]
    if model.adds_space:
        steps += [decoders.Strip(" ", 1, 0)]
    return decoders.Sequence(steps)
