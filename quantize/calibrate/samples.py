"""Calibration samples: documents as token ids, joined and cut into windows of one length."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError, TokenizerError
from calculator.units import counted
from glm4q.chat.template import ChatTemplate
from glm4q.text.tokenizer import Tokenizer
from quantize.calibrate.conversations import for_glm4
from quantize.calibrate.documents import Document, read_documents, read_lines

BUILT_IN = tuple(files("quantize") / "data" / f"calibration-{part}.jsonl" for part in (1, 2))
"""Chats, tool calls, code, mathematics, manuals and prose in many languages. Kinds alternate, so
that every stretch of the set holds all of them. SOURCES.md beside it names the works that excerpts
are from; the rest was written for this project."""
DEFAULT_SAMPLES = 128
DEFAULT_LENGTH = 512


@dataclass(frozen=True)
class Calibration:
    """The samples with which a model is quantized."""

    token_ids: Tensor
    """int64 [samples, length]."""
    source: str
    seed: int

    @property
    def digest(self) -> str:
        """The sha256 of the token ids, which tells sets of samples from each other."""
        return hashlib.sha256(self.token_ids.numpy().tobytes()).hexdigest()

    @property
    def record(self) -> dict[str, Any]:
        """The entry of the quality report."""
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
    """Cut samples of `length` tokens, `samples` at most, spread over a file or directory.

    path: text, JSON lines or a JSON array of documents (see documents.py), or a directory of such
    files; the built-in set if None. The tokenizer and the chat template are those of `stored`.
    Raises OptionError or TokenizerError.
    """
    encoder, vocabulary = DocumentEncoder(stored), stored.config.vocab_size
    documents = read_documents(path) if path else read_lines(built_in_text(), "the built-in set")
    stream: list[int] = []
    for document in documents:
        token_ids = encoder.encode(document)
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < vocabulary:
            raise OptionError(f"{document.place}, has a token id outside of 0 to {vocabulary - 1}")
        stream += token_ids
    if len(stream) < length:
        raise OptionError(
            f"{path or 'the built-in set'} has {counted(len(stream), 'token')}, and one sample "
            f"needs {length}"
        )
    windows = torch.tensor(stream[: len(stream) // length * length]).view(-1, length)
    name = path.name if path else "built in"
    return Calibration(windows[_spread(len(windows), samples, seed)], name, seed)


def _spread(windows: int, samples: int, seed: int) -> Tensor:
    """Choose one window at random from each of `samples` equal stretches of the documents.

    So few samples still come from all parts of the set: chance alone may take most of a kind.
    """
    samples = min(samples, windows)
    ends = torch.arange(samples + 1) * windows // samples
    sizes = ends[1:] - ends[:-1]
    generator = torch.Generator().manual_seed(seed)
    return ends[:-1] + (torch.rand(samples, generator=generator) * sizes).long()


def built_in_text() -> str:
    """Read the built-in set: JSON lines."""
    return "".join(part.read_text(encoding="utf-8") for part in BUILT_IN)


class DocumentEncoder:
    """Encodes documents by the tokenizer and the chat template of a model."""

    def __init__(self, stored: StoredModel) -> None:
        self._stored = stored

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; documents of token ids need none."""
        return Tokenizer.for_model(self._stored.directory, self._stored.config)

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate.from_directory(self._stored.directory, self.tokenizer.control_tokens)

    def encode(self, document: Document) -> list[int]:
        """Return token ids. Raises OptionError with the document's place, and TokenizerError."""
        content = document.content
        if isinstance(content, str):
            return [*self.tokenizer.prefix_ids, *self.tokenizer.encode(content)]
        if isinstance(content, list):
            return content
        template = self._template
        try:
            messages = content.messages
            if "<|observation|>" in self.tokenizer.control_tokens:
                messages = tuple(for_glm4(messages))
            tools = content.tools or None
            text = template.render(messages, tools=tools, add_generation_prompt=False)
        except (OptionError, TokenizerError) as error:
            raise OptionError(f"{document.place}, {error}") from None
        return self.tokenizer.encode_prompt(text)
