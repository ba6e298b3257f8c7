"""Calibration samples: text, conversations or token ids, cut into windows of one length."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from glm4q.chat.template import ChatTemplate
from glm4q.text.tokenizer import Tokenizer
from quantize.calibrate.texts import read_text

BUILT_IN = files("quantize") / "data" / "calibration.jsonl"
"""English, Chinese, code and tool calls, written for this project."""
SUFFIXES = (".txt", ".md", ".jsonl")
DEFAULT_SAMPLES = 128
DEFAULT_LENGTH = 512


@dataclass(frozen=True)
class Calibration:
    """What the model is shown while it is quantized."""

    token_ids: Tensor
    """int64 [samples, length]."""
    source: str
    seed: int

    @property
    def digest(self) -> str:
        """sha256 of the token ids: another set has another one."""
        return hashlib.sha256(self.token_ids.numpy().tobytes()).hexdigest()

    @property
    def record(self) -> dict[str, Any]:
        """What the quality report says of it."""
        samples, length = self.token_ids.shape
        return {
            "source": self.source,
            "samples": samples,
            "length": length,
            "seed": self.seed,
            "sha256_of_token_ids": self.digest,
        }


def read_calibration(
    path: Path | None,
    stored: StoredModel,
    *,
    samples: int = DEFAULT_SAMPLES,
    length: int = DEFAULT_LENGTH,
    seed: int = 0,
) -> Calibration:
    """Windows of `length` tokens, `samples` at most, taken at random from a file or directory.

    path: text, JSON lines ({"messages": [...]}, {"text": "..."} or {"token_ids": [...]}), or a
    directory of these; the built-in set if None. The tokenizer and the chat template are those of
    `stored`. Raises OptionError or TokenizerError.
    """
    encoder, vocabulary = _Encoder(stored), stored.config.vocab_size
    stream: list[int] = []
    for document in _documents(path):
        stream += encoder.encode(document)
    if stream and not 0 <= min(stream) <= max(stream) < vocabulary:
        raise OptionError(f"calibration has a token id outside of 0 to {vocabulary - 1}")
    windows = torch.tensor(stream[: len(stream) // length * length]).view(-1, length)
    if not len(windows):
        raise OptionError(
            f"the calibration text has {len(stream)} tokens, and one sample needs {length}"
        )
    chosen = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))[:samples]
    name = path.name if path else "built in"
    return Calibration(windows[chosen.sort().values], name, seed)


class _Encoder:
    def __init__(self, stored: StoredModel) -> None:
        self._stored = stored

    @cached_property
    def _tokenizer(self) -> Tokenizer:  # token ids need none
        return Tokenizer.for_model(self._stored.directory, self._stored.config)

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate.from_directory(self._stored.directory, self._tokenizer.control_tokens)

    def encode(self, document: Any) -> list[int]:
        if isinstance(document, str):
            return [*self._tokenizer.prefix_ids, *self._tokenizer.encode(document)]
        if not isinstance(document, dict):
            raise OptionError(f"a line of calibration must be a JSON object, not {document!r:.60}")
        if isinstance(document.get("text"), str):
            return self.encode(document["text"])
        ids = document.get("token_ids")
        if isinstance(ids, list) and all(type(token) is int for token in ids):
            return ids
        messages = document.get("messages")
        if isinstance(messages, list) and all(isinstance(each, dict) for each in messages):
            return self._rendered(messages)
        raise OptionError("a line of calibration must have messages, text or token_ids")

    def _rendered(self, messages: list[dict[str, Any]]) -> list[int]:
        text = self._template.render(messages, add_generation_prompt=False)
        return self._tokenizer.encode_prompt(text)


def _documents(path: Path | None) -> Iterator[Any]:
    if path is None:
        yield from _json_lines(BUILT_IN.read_text(encoding="utf-8"), "built in")
        return
    found = [path]
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
        if not found:
            raise OptionError(f"{path} has no file that ends in {', '.join(SUFFIXES)}")
    for file in found:
        text = read_text(file)
        if file.suffix == ".jsonl":
            yield from _json_lines(text, str(file))
        else:
            yield text


def _json_lines(text: str, name: str) -> Iterator[Any]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise OptionError(f"{name}, line {number}, is not JSON: {error}") from None
