"""The bytes that one token adds to a text: a token may be a part of a character.

They follow from the decoder of the `tokenizers` library, which itself gives text only.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tokenizers

from calculator.errors import TokenizerError
from glm4q.text.tiktoken_bpe import byte_alphabet

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""How a vocabulary with byte fallback writes a single byte."""

PIECES = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
"""Decoders of vocabularies that write a space as another character."""


def bytes_of_tokens(backend: tokenizers.Tokenizer) -> Callable[[str], bytes]:
    """Return the function from a token, as its vocabulary writes it, to its bytes.

    Raises TokenizerError for a decoder that is not known.
    """
    state = None if backend.decoder is None else json.loads(backend.decoder.__getstate__())
    steps = list(_steps(state))
    kinds = {str(step["type"]) for step in steps}
    if kinds == {"ByteLevel"}:
        return _of_byte_level
    if kinds and kinds <= PIECES:
        return _Pieces(steps)
    names = ", ".join(sorted(kinds)) or "none"
    raise TokenizerError(f"the bytes of tokens are not known behind this decoder: {names}")


def _steps(state: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if state is None:
        return
    if state["type"] == "Sequence":
        for inner in state["decoders"]:
            yield from _steps(inner)
    else:
        yield state


BYTES = {letter: byte for byte, letter in byte_alphabet().items()}


def _of_byte_level(token: str) -> bytes:
    try:
        return bytes([BYTES[letter] for letter in token])
    except KeyError:  # an added token, which is written as it is
        return token.encode("utf-8")


class _Pieces:
    """Tokens of SentencePiece: another character stands for a space, <0x0A> for a byte."""

    def __init__(self, steps: list[Mapping[str, Any]]) -> None:
        self._falls_back = any(step["type"] == "ByteFallback" for step in steps)
        self._replaced = [pair for step in steps if (pair := _replacement(step))]

    def __call__(self, token: str) -> bytes:
        if self._falls_back and (byte := BYTE.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        for old, new in self._replaced:
            token = token.replace(old, new)
        return token.encode("utf-8")


def _replacement(step: Mapping[str, Any]) -> tuple[str, str] | None:
    if step["type"] == "Metaspace":
        return str(step["replacement"]), " "
    if step["type"] == "Replace" and "String" in step["pattern"]:
        return str(step["pattern"]["String"]), str(step["content"])
    return None
