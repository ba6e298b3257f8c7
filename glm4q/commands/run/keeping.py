"""What a chat keeps on disk: conversations by name, and the cache of what was read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from calculator.options import parse_size
from calculator.units import counted, human_bytes
from glm4q.chat.session import ChatSession
from glm4q.chat.sessions.keeper import SessionKeeper
from glm4q.chat.sessions.session_file import SessionDirectory
from glm4q.decode.prefixes.prefix_store import PrefixStore
from glm4q.engine import LLM
from glm4q.planning.fingerprint import Fingerprint
from glm4q.terminal.user_directories import cache_directory, state_directory

Say = Callable[[str], None]


@dataclass
class Running:
    """The model that answers. A chat may go on with another cache of it."""

    llm: LLM

    def change_cache(self, kv: str, context: int | None) -> None:
        """Go on with a cache of another format or length. Raises Glm4qError where none fits."""
        self.llm = self.llm.with_cache(kv, context)


def sessions_directory() -> SessionDirectory:
    """Return where conversations are kept."""
    return SessionDirectory(state_directory() / "sessions")


def prefixes_directory() -> Path:
    """Return where cached prompts are kept, unless an option names another place."""
    return cache_directory() / "prefixes"


def refuse_session(name: str) -> None:
    """Raise SessionError where no conversation can be kept under a name."""
    directory = sessions_directory()
    directory.refuse_unwritable(name)
    if directory.file(name).exists():
        directory.read(name, touch=False)


@dataclass(frozen=True)
class PrefixPlace:
    """A directory of cached prompts and its limit."""

    directory: Path
    limit: int

    @classmethod
    def parse(cls, directory: Path | None, size: str) -> "PrefixPlace":
        """Read what the options say. Raises OptionError."""
        return cls(directory or prefixes_directory(), parse_size(size, "prefix-store-size"))

    def open(self, llm: LLM, say: Say) -> tuple[PrefixStore, Fingerprint]:
        """Let a model's prompts begin from here. Raises PrefixError."""
        return llm.keep_prefixes(
            self.directory,
            limit=self.limit,
            notify=say,
            reading=lambda nbytes: say(
                f"reading all weights once, {human_bytes(nbytes)}: a cache is used only with them"
            ),
        )


def make_keeper(
    running: Running, session: ChatSession, place: PrefixPlace, say: Say
) -> SessionKeeper:
    """Prepare to save and load conversations.

    Where this checkpoint has cached prompts already, a new conversation may begin from them; where
    it has none, nothing is read before something is saved.
    """
    llm = running.llm
    keeper = SessionKeeper(
        session,
        sessions_directory(),
        lambda: place.open(running.llm, say),
        model=str(llm.directory),
    )
    if llm.has_kept_prefixes(place.directory):
        keeper.open()
    return keeper


def begin_session(
    keeper: SessionKeeper, session: ChatSession, name: str, system: str | None, say: Say
) -> None:
    """Go on with the conversation of a name if there is one, and save it after each answer.

    The run is named before the first question, which may read all weights: then whatever ends the
    chat leaves time to save it.
    system: a system prompt that replaces the kept one. Raises SessionError where the kept
    conversation is damaged: it is never overwritten unseen.
    """
    if keeper.directory.file(name).exists():
        problem = keeper.load(name)
        if system is not None:
            session.system = system
        _, cached = session.row()
        count = counted(len(session.messages), "message")
        say(f"session {name}: {count}, {counted(cached, 'token')} of its cache come from disk")
        if problem:
            say(problem)
    keeper.open()
    keeper.name, keeper.always = name, True
