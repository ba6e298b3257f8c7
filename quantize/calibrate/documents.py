"""Calibration files as people have them: prose, JSON arrays and JSON lines of chats, text or ids.

Each document keeps its file and line, for messages. What is not understood is refused, and never
read as something else: a JSON array, say, is not taken for prose.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calculator.errors import OptionError
from quantize.calibrate.conversations import Conversation, read_conversation

PROSE, LINES, WHOLE = (".txt", ".md"), (".jsonl", ".ndjson"), (".json",)
SUFFIXES = (*PROSE, *LINES, *WHOLE)


@dataclass(frozen=True)
class Document:
    """A text, a conversation or token ids, and where it stands."""

    place: str
    content: str | Conversation | list[int]


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark. Raises OptionError."""
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise OptionError(
            f"{path}, line {line}, is not UTF-8 text: byte 0x{data[error.start]:02x} cannot be read"
        ) from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from None


def read_documents(path: Path) -> Iterator[Document]:
    """Read a file, or all files of a directory that end in SUFFIXES. Raises OptionError."""
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
        if not files:
            raise OptionError(f"{path} has no file that ends in {', '.join(SUFFIXES)}")
    for file in files:
        yield from _documents(read_text(file), str(file), file.suffix)


def read_lines(text: str, name: str) -> Iterator[Document]:
    """Read a document in each line of JSON. Raises OptionError."""
    # Not splitlines(): JSON strings may hold separators of lines that only Unicode knows.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{name}, line {number}"
            yield Document(place, _content(_parsed(line, place), place))


def _documents(text: str, name: str, suffix: str) -> Iterator[Document]:
    if suffix in LINES:
        yield from read_lines(text, name)
    elif suffix in WHOLE:
        yield from _whole(text, name)
    elif _is_json(text):
        raise OptionError(f"{name} holds JSON: let its name end in .json, or .jsonl for JSON lines")
    else:
        yield Document(name, text)


def _whole(text: str, name: str) -> Iterator[Document]:
    """A JSON array of documents, or one document; some people call JSON lines .json as well."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from read_lines(text, name)
            return
        raise OptionError(f"{name}, line {error.lineno}, is not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{name} is not JSON: {error}") from None
    if not isinstance(value, list) or _is_messages(value):
        yield Document(name, _content(value, name))
        return
    for number, item in enumerate(value, start=1):
        place = f"{name}, item {number}"
        yield Document(place, _content(item, place))


def _content(value: Any, place: str) -> str | Conversation | list[int]:
    """What a JSON value says. Raises OptionError with its place."""
    if _is_messages(value):
        value = {"messages": value}
    if not isinstance(value, dict):
        raise OptionError(
            f"{place}, must be a JSON object or a list of messages, not {_json(value)}"
        )
    if isinstance(value.get("text"), str):
        return str(value["text"])
    if "text" in value and len(value) == 1:
        raise OptionError(f"{place}, must have text as text, not {_json(value['text'])}")
    if isinstance(ids := value.get("token_ids"), list):
        if wrong := [token for token in ids if type(token) is not int]:
            raise OptionError(f"{place}, must have whole numbers as token_ids, not {wrong[0]!r}")
        return ids
    prompt, completion = value.get("prompt"), value.get("completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        return prompt + completion  # the text that such models are trained on
    try:
        return read_conversation(value)
    except OptionError as error:
        raise OptionError(f"{place}, {error}") from None


def _json(value: Any) -> str:
    """Return a value as its file has it, or the beginning of it."""
    return f"{json.dumps(value, ensure_ascii=False):.60}"


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and "role" in item for item in value)
    )


def _is_json(text: str) -> bool:
    """Whether prose is JSON, as a whole or in its first line."""
    start = text.lstrip()
    if not start.startswith(("{", "[")):
        return False
    for part in (start, start.partition("\n")[0]):
        try:
            return isinstance(json.loads(part), dict | list)
        except (ValueError, RecursionError):
            continue
    return False


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{place}, is not JSON: {error}") from None
