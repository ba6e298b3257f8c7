"""A conversation in a file: JSON with a checksum, readable by its owner only."""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from calculator.atomic_write import write_atomically
from calculator.errors import OptionError, SessionError
from glm4q.chat.transcript import Conversation, Transcript
from glm4q.planning.disk import refuse_unwritable
from glm4q.planning.fingerprint import Fingerprint

SUFFIX = ".json"
NAME = re.compile(r"\w[\w.-]{0,63}")


@dataclass(frozen=True)
class SavedSession:
    """A conversation, the run that answered in it, and the place of its cache."""

    model: str
    """Where the checkpoint was."""
    fingerprint: Fingerprint
    conversation: Conversation
    tail: str | None
    """The id of the last block of its cache; None where nothing of it was cached."""

    def to_json(self) -> dict[str, Any]:
        """Write it as plain JSON."""
        conversation = self.conversation
        return {
            "model": self.model,
            "fingerprint": asdict(self.fingerprint),
            "system": conversation.system,
            "messages": [dict(message) for message in conversation.messages],
            "transcript": asdict(conversation.transcript),
            "tail": self.tail,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises KeyError or TypeError where it did not."""
        transcript = content["transcript"]
        parts = content["fingerprint"]
        return cls(
            content["model"],
            Fingerprint(**{field.name: parts[field.name] for field in fields(Fingerprint)}),
            Conversation(
                content["system"],
                tuple(content["messages"]),
                Transcript(
                    transcript["text"],
                    [*transcript["token_ids"]],
                    [(characters, tokens) for characters, tokens in transcript["cuts"]],
                ),
            ),
            content["tail"],
        )


class SessionDirectory:
    """The kept conversations of a user, by name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        """Return the names of all sessions, the last used first."""
        files = [file for file in self._path.glob(f"*{SUFFIX}") if NAME.fullmatch(file.stem)]
        return [file.stem for file in sorted(files, key=_last_used, reverse=True)]

    def last_used(self, name: str) -> float:
        """When a session was last written or read, in seconds since 1970."""
        return _last_used(self.file(name))

    def file(self, name: str) -> Path:
        """Return the file of a session. Raises SessionError where the name cannot be one."""
        if not NAME.fullmatch(name):
            raise SessionError(
                f"a session's name has 1 to 64 letters, digits, dots and hyphens, and begins with "
                f"a letter or a digit, unlike {name!r}"
            )
        return self._path / f"{name}{SUFFIX}"

    def version(self, name: str) -> str | None:
        """Return what tells a session's content from any other; None where there is no file."""
        try:
            return hashlib.sha256(self.file(name).read_bytes()).hexdigest()
        except OSError:
            return None

    def read(self, name: str, *, touch: bool = True) -> SavedSession:
        """Read a session. Raises SessionError where there is none, or where it is damaged.

        touch: note that it was used.
        """
        file = self.file(name)
        if not file.is_file():
            known = ", ".join(self.names()) or "none"
            raise SessionError(f"there is no session {name}; the sessions are {known}")
        try:
            content = json.loads(file.read_bytes())
            checksum, session = content["sha256"], content["session"]
            if checksum != _checksum(session):
                raise SessionError(f"{file} is damaged: its checksum differs; it is not used")
            saved = SavedSession.from_json(session)
        except OSError as error:
            raise SessionError(f"{file} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SessionError(f"{file} is damaged: it is no session; it is not used") from None
        if touch:
            with suppress(OSError):  # whoever may only read it may still use it
                file.touch()
        return saved

    def refuse_unwritable(self, name: str) -> None:
        """Raise SessionError where no session can be kept under this name."""
        self.file(name)
        try:
            refuse_unwritable(self._path, f"the file of session {name}")
        except OptionError as error:
            raise SessionError(str(error)) from None

    def write(self, name: str, saved: SavedSession) -> None:
        """Keep a session; one of this name is replaced. Raises SessionError."""
        file, session = self.file(name), saved.to_json()
        content = {"sha256": _checksum(session), "session": session}
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            data = json.dumps(content, ensure_ascii=False).encode(errors="surrogatepass")
            write_atomically(file, data, mode=0o600, lasting=True)
        except OSError as error:
            raise SessionError(f"{file} cannot be written: {error.strerror}") from None

    def remove(self, name: str) -> None:
        """Remove a session's messages. Raises SessionError where there is none."""
        file = self.file(name)
        try:
            file.unlink()
        except FileNotFoundError:
            raise SessionError(f"there is no session {name}") from None
        except OSError as error:
            raise SessionError(f"{file} cannot be removed: {error.strerror}") from None


def _last_used(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # removed by another process
        return 0.0


def _checksum(session: Mapping[str, Any]) -> str:
    plain = json.dumps(session, sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()
