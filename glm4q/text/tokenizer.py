"""Text to token ids and back, over the `tokenizers` library.

Plain text never becomes a control token. In a chat prompt those that the template wrote do; those
that a user typed, which glm4q.chat puts between USER_START and USER_END, stay text.
"""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import tokenizers
from tokenizers.decoders import DecodeStream
from tokenizers.pre_tokenizers import ByteLevel

from calculator.checkpoint.gguf_file import is_gguf, read_gguf
from calculator.errors import TokenizerError
from calculator.git_lfs import about_lfs_pointer, is_lfs_pointer
from calculator.json_files import MAX_TOKENIZER_BYTES, read_json_object
from calculator.model.config import ModelConfig
from glm4q.text.gguf_tokenizer import read_gguf_tokenizer
from glm4q.text.sentencepiece_bpe import is_sentencepiece, read_sentencepiece
from glm4q.text.tiktoken_bpe import read_tiktoken
from glm4q.text.token_bytes import bytes_of_tokens

# The last two private-use characters: fonts put their icons at the front of these planes.
USER_START, USER_END = "\U0010fffc", "\U0010fffd"

# Ids 151329 to 151342, after the 151,329 ranks of GLM-4's tokenizer.model
GLM4_CONTROL_TOKENS = (
    *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
)
GLM4_RANKS = 151_329

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
"""The first of these files that a directory has is read."""

UNFINISHED_TOKENS = 32
"""No character takes this many tokens: what is no text by then never becomes text."""


class Tokenizer:
    """A model's tokenizer."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # as the text they are
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        self.control_tokens = {
            token.content: token_id for token_id, token in added.items() if token.special
        }
        control = control_token_pattern(self.control_tokens)
        self._prompt_parts = re.compile(
            f"{USER_START}(?P<text>{control}){USER_END}|[{USER_START}{USER_END}]|(?P<control>{control})"
        )

    @classmethod
    def from_directory(cls, path: Path) -> Self:
        """Read tokenizer.json, or GLM-4's original tokenizer.model and tokenizer_config.json."""
        if is_gguf(path):
            return cls(read_gguf_tokenizer(read_gguf(path)))
        if (path / "tokenizer.json").is_file():
            return cls(_read_tokenizer_json(path / "tokenizer.json"))
        if (path / "tokenizer.model").is_file():
            return cls(_read_original(path))
        raise TokenizerError(f"{path} has neither {' nor '.join(TOKENIZER_FILES)}")

    @classmethod
    def for_model(cls, path: Path, config: ModelConfig) -> Self:
        """Read the tokenizer of a model, whose embedding has a row for each of its ids.

        Raises TokenizerError.
        """
        tokenizer = cls.from_directory(path)
        largest, token = tokenizer.largest_id()
        if largest >= config.vocab_size:
            name = next((name for name in TOKENIZER_FILES if (path / name).is_file()), "")
            raise TokenizerError(
                f"{path / name} gives {token!r} the id {largest}, and the model has embedding rows "
                f"for ids below {config.vocab_size} only (vocab_size in config.json)"
            )
        return tokenizer

    def save(self, path: Path) -> None:
        """Write tokenizer.json into a directory, for `from_directory`."""
        self._backend.save(str(path / "tokenizer.json"))

    @property
    def vocab_size(self) -> int:
        return self._backend.get_vocab_size()

    def largest_id(self) -> tuple[int, str]:
        """Return the largest token id, and its token; (-1, "") where there are no tokens."""
        ids = self._backend.get_vocab(with_added_tokens=True)
        return max(((token_id, token) for token, token_id in ids.items()), default=(-1, ""))

    @property
    def prefix_ids(self) -> list[int]:
        """What GLM-4 expects before a text that is no chat; nothing for other models."""
        for prefix in (("[gMASK]", "<sop>"), ("[gMASK]", "sop")):
            if self.control_tokens.keys() >= set(prefix):
                return [self.control_tokens[token] for token in prefix]
        return []

    def token_id(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    def encode(self, text: str) -> list[int]:
        """Encode plain text: `<|user|>` in it stays text, and nothing is put in front."""
        # JSON can hold half a surrogate pair, which no tokenizer takes: U+FFFD, as in tiktoken
        valid = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        # "fast" leaves out each token's place in the text, which takes two thirds of the time
        return self._backend.encode_batch_fast([valid], add_special_tokens=False)[0].ids

    def encode_prompt(self, rendered: str) -> list[int]:
        """Encode a chat prompt: control tokens count, except those that a user typed."""
        token_ids: list[int] = []
        text, end = "", 0
        for part in self._prompt_parts.finditer(rendered):
            text += rendered[end : part.start()] + (part["text"] or "")
            end = part.end()
            if part["control"]:
                token_ids += [*self.encode(text), self.control_tokens[part["control"]]]
                text = ""
        return token_ids + self.encode(text + rendered[end:])

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decode to text, without control tokens and without padding ids beyond the vocabulary."""
        return self._backend.decode(token_ids, skip_special_tokens=True)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token adds to a text: none for control tokens and padding ids.

        Raises TokenizerError where the tokenizer's decoder is of an unknown kind.
        """
        token = self._backend.id_to_token(token_id)
        if token is None or token in self.control_tokens:
            return b""
        return self._bytes_of(token)

    def token_text(self, token_id: int) -> str:
        """Write a token as text: a control token by name, and U+FFFD for bytes that are no text."""
        named = self._backend.id_to_token(token_id)
        if named in self.control_tokens:
            return str(named)
        return self.token_bytes(token_id).decode("utf-8", "replace")

    @cached_property
    def _bytes_of(self) -> Callable[[str], bytes]:
        return bytes_of_tokens(self._backend)

    def stream(self, token_ids: Iterable[int]) -> Iterator[str]:
        """Yield `decode`'s text in pieces, each as soon as its characters are whole."""
        stream = self.new_stream()
        for token_id in token_ids:
            if piece := stream.push(token_id):
                yield piece
        if rest := stream.rest():
            yield rest

    def new_stream(self) -> "TextStream":
        """Begin the text of an answer whose tokens are pushed as they come."""
        return TextStream(self, self._backend)


class TextStream:
    """Takes the tokens of a text, and returns text as soon as its characters are whole."""

    def __init__(self, tokenizer: Tokenizer, backend: tokenizers.Tokenizer) -> None:
        self._tokenizer, self._backend = tokenizer, backend
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._unfinished: list[int] = []

    def push(self, token_id: int) -> str:
        """Return the text that is certain since this token came; often nothing."""
        self._unfinished.append(token_id)
        if piece := self._decoder.step(self._backend, token_id):
            self._unfinished.clear()
            return piece
        if len(self._unfinished) <= UNFINISHED_TOKENS:
            return ""
        # The decoder reads all of them anew each time: bytes that are no text, or padding.
        piece, self._unfinished = self._settle(self._unfinished)
        self._decoder = DecodeStream(self._unfinished, skip_special_tokens=True)
        return piece

    def rest(self) -> str:
        """Return what no token has finished; the text has ended."""
        rest, self._unfinished = self._tokenizer.decode(self._unfinished), []
        self._decoder = DecodeStream(skip_special_tokens=True)
        return rest

    def _settle(self, token_ids: list[int]) -> tuple[str, list[int]]:
        """Return the text of the tokens that no later one can change, and the other tokens."""
        decode = self._tokenizer.decode
        token_ids = [token_id for token_id in token_ids if decode([token_id])]
        text = decode(token_ids)
        for end in range(len(token_ids) - 1, 0, -1):
            first, rest = decode(token_ids[:end]), decode(token_ids[end:])
            if rest and first + rest == text:
                return first, token_ids[end:]
        return "", token_ids


def control_token_pattern(tokens: Iterable[str]) -> str:
    """Make a regex for any of the tokens; a longer one wins over those it starts with."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return "|".join(map(re.escape, longest_first)) or "(?!)"  # (?!) matches nothing


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON file beside a tokenizer; an absent one holds nothing. Raises TokenizerError."""
    if not path.is_file():
        return {}
    return read_json_object(path, limit=MAX_TOKENIZER_BYTES, error=TokenizerError)


def _read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    if is_lfs_pointer(path):
        raise TokenizerError(about_lfs_pointer(path))
    try:
        size = path.stat().st_size
        if size > MAX_TOKENIZER_BYTES:
            raise TokenizerError(
                f"{path} has {size:,} bytes, and at most {MAX_TOKENIZER_BYTES:,} are read"
            )
        # Editors on Windows begin a file with a byte order mark, which is no JSON.
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        backend = tokenizers.Tokenizer.from_buffer(content)
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise TokenizerError(f"{path} is no tokenizer: {error}") from None
    _refuse_missing_unknown_token(backend, path)
    return backend


def _refuse_missing_unknown_token(backend: tokenizers.Tokenizer, path: Path) -> None:
    """Refuse a model that would fail at the first character that its vocabulary lacks.

    A vocabulary of all bytes lacks no character, so it needs no unknown token.
    """
    unknown = getattr(backend.model, "unk_token", None)
    if unknown is None or backend.model.token_to_id(unknown) is not None:
        return
    vocabulary = backend.get_vocab(with_added_tokens=False).keys()
    fallback = {f"<0x{byte:02X}>" for byte in range(256)}
    if not (vocabulary >= set(ByteLevel.alphabet()) or vocabulary >= fallback):
        raise TokenizerError(f"{path} has the unk_token {unknown!r}, which its vocabulary lacks")


def _read_original(path: Path) -> tokenizers.Tokenizer:
    if is_lfs_pointer(path / "tokenizer.model"):
        raise TokenizerError(about_lfs_pointer(path / "tokenizer.model"))
    if is_sentencepiece(path / "tokenizer.model"):
        return read_sentencepiece(path / "tokenizer.model")
    backend = read_tiktoken(path / "tokenizer.model")
    ranks = backend.get_vocab_size()
    if decoder := read_settings(path / "tokenizer_config.json").get("added_tokens_decoder"):
        _add_tokens(backend, decoder, path / "tokenizer_config.json")
    elif ranks == GLM4_RANKS:
        backend.add_special_tokens(list(GLM4_CONTROL_TOKENS))
    else:
        raise TokenizerError(
            f"{path}/tokenizer_config.json has no added_tokens_decoder, and tokenizer.model is not"
            f" GLM-4's: {ranks} ranks, not {GLM4_RANKS}"
        )
    return backend


def _add_tokens(backend: tokenizers.Tokenizer, decoder: Any, path: Path) -> None:
    try:
        tokens = {int(token_id): _added_token(entry) for token_id, entry in decoder.items()}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise TokenizerError(f"{path}: added_tokens_decoder is malformed: {error!r}") from None
    backend.add_tokens([tokens[token_id] for token_id in sorted(tokens)])
    for token_id, token in tokens.items():
        if (actual := backend.token_to_id(token.content)) != token_id:
            raise TokenizerError(
                f"{path}: {token.content!r} cannot have id {token_id}, only the next one, {actual}"
            )


def _added_token(entry: dict[str, Any]) -> tokenizers.AddedToken:
    names = ("special", "lstrip", "rstrip", "normalized", "single_word")
    flags = {name: entry.get(name, False) for name in names}
    return tokenizers.AddedToken(entry["content"], **flags)
