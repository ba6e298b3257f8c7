"""SentencePiece's tokenizer.model, as chatglm3-6b brings one, as a BPE of the tokenizers library.

The file is a protocol buffer, of which few fields matter:
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto.
Merges follow from the scores, as in transformers' convert_slow_tokenizer.py.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers

from calculator.errors import TokenizerError

SPACE = "\u2581"
"""What stands for a space in a piece."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
BPE = 2
CHATGLM3_CONTROL_TOKENS = (
    *("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
)
"""tokenization_chatglm.py gives them the ids behind the pieces, in this order."""


@dataclass
class SentencePieceModel:
    """What the file says."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    """Text, score and type, in the order of ids."""
    model_type: int = 1
    byte_fallback: bool = False
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    character_map: bytes = b""


def is_sentencepiece(path: Path) -> bool:
    """Return whether a tokenizer.model begins with a piece, and not with tiktoken's base64."""
    with path.open("rb") as stream:
        first = stream.read(4)
    # A field that holds a message of a few bytes, whose own first field is text that is not empty.
    return len(first) == 4 and first[0] == first[2] == 10 and 0 < first[3] < first[1] < 128


def read_sentencepiece(path: Path) -> tokenizers.Tokenizer:
    """Return the tokenizer of a file, with ChatGLM3's control tokens. Raises TokenizerError."""
    try:
        read = parse(path.read_bytes())
    except (ValueError, IndexError, struct.error) as error:
        raise TokenizerError(f"{path} is no whole SentencePiece model: {error}") from None
    if read.model_type != BPE:
        raise TokenizerError(f"{path} is a SentencePiece model that is no BPE, which alone is read")
    backend = _backend(read)
    backend.add_special_tokens(
        [token for token, _, kind in read.pieces if kind in (CONTROL, USER_DEFINED)]
    )
    backend.add_special_tokens(list(CHATGLM3_CONTROL_TOKENS))
    return backend


def _backend(read: SentencePieceModel) -> tokenizers.Tokenizer:
    vocab = {token: number for number, (token, _, _) in enumerate(read.pieces)}
    unknown = next((token for token, _, kind in read.pieces if kind == UNKNOWN), None)
    model = models.BPE(
        vocab=vocab,
        merges=_merges(read, vocab),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=read.byte_fallback,
    )
    backend = tokenizers.Tokenizer(model)
    steps: list[normalizers.Normalizer] = []
    if read.character_map:
        steps.append(normalizers.Precompiled(read.character_map))
    if read.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    if read.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if read.add_dummy_prefix else []),
        ]
    )
    return backend


def _merges(read: SentencePieceModel, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Return every cut of a piece into two, the pieces of the best scores first."""
    normal = {token: score for token, score, kind in read.pieces if kind == NORMAL}
    cuts = [
        (token[:at], token[at:], score)
        for token, score in normal.items()
        for at in range(1, len(token))
        if token[:at] in normal and token[at:] in normal
    ]
    cuts.sort(key=lambda cut: (-cut[2], vocab[cut[0]], vocab[cut[1]]))
    return [(left, right) for left, right, _ in cuts]


def parse(data: bytes) -> SentencePieceModel:
    """Read the fields that matter. Raises ValueError, IndexError or struct.error."""
    read = SentencePieceModel()
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            read.pieces.append(_piece(value))
        elif number == 2 and isinstance(value, bytes):
            trainer = dict(_fields(value))
            read.model_type = int(trainer.get(3, read.model_type))
            read.byte_fallback = bool(trainer.get(35, False))
        elif number == 3 and isinstance(value, bytes):
            normalizer = dict(_fields(value))
            read.character_map = bytes(normalizer.get(2, b""))  # type: ignore[arg-type]
            read.add_dummy_prefix = bool(normalizer.get(3, True))
            read.remove_extra_whitespaces = bool(normalizer.get(4, True))
    return read


def _piece(data: bytes) -> tuple[str, float, int]:
    fields = dict(_fields(data))
    token, score, kind = fields.get(1, b""), fields.get(2, 0.0), fields.get(3, NORMAL)
    if not isinstance(token, bytes):
        raise ValueError("a piece has no text")
    return token.decode("utf-8"), float(score), int(kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Number and value of each field of a message, in the wire format of protocol buffers."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field is cut off")
            yield number, data[at : at + size]
            at += size
        elif wire == 5:
            yield number, struct.unpack_from("<f", data, at)[0]
            at += 4
        elif wire == 1:
            yield number, struct.unpack_from("<d", data, at)[0]
            at += 8
        else:
            raise ValueError(f"a field is of wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
