"""Saves and loads conversations: messages in one directory, their cache in another."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from calculator.errors import PrefixError, SessionError
from glm4q.chat.session import ChatSession
from glm4q.chat.sessions.session_file import SavedSession, SessionDirectory
from glm4q.chat.transcript import Transcript
from glm4q.decode.prefixes.prefix_store import PrefixStore
from glm4q.planning.fingerprint import Fingerprint

OpenPrefixes = Callable[[], tuple[PrefixStore, Fingerprint]]
"""Names the run and opens its prefixes, which takes seconds the first time: weights are read."""


class SessionKeeper:
    """Keeps one conversation under names of a directory."""

    def __init__(
        self,
        session: ChatSession,
        directory: SessionDirectory,
        open_prefixes: OpenPrefixes,
        *,
        model: str,
    ) -> None:
        self._session, self.directory, self._model = session, directory, model
        self._open_prefixes = open_prefixes
        self._opened: tuple[PrefixStore, Fingerprint] | None = None
        self.name: str | None = None
        """The name under which the conversation was last saved or loaded."""
        self._version: str | None = None
        """What the file of that name held then."""
        self.always = False
        """Whether it is saved after each answer."""

    def open(self) -> tuple[PrefixStore, Fingerprint]:
        """Open the cached prefixes of the run, once, so that prompts may begin from them."""
        if self._opened is None:
            self._opened = self._open_prefixes()
        return self._opened

    @contextmanager
    def cache_changes(self) -> Iterator[None]:
        """Let the session go on in another cache, which the `with` block makes.

        The prefixes of the old one are let go, since they refer to its memory.
        """
        was_open, self._opened = self._opened is not None, None
        try:
            yield
        finally:
            if was_open:
                self.open()

    def save(self, name: str) -> str | None:
        """Keep messages and cache. Returns why the cache could not be kept.

        Raises SessionError, also where another chat has changed this conversation meanwhile.
        """
        self.directory.refuse_unwritable(name)  # before all weights are read for the cache
        prefixes, fingerprint = self.open()
        row, tokens = self._session.row()
        tail, problem = None, None
        try:
            tail = prefixes.save(row, tokens)
        except PrefixError as error:
            problem = f"the cache is not kept: {error}"
        saved = SavedSession(self._model, fingerprint, self._session.conversation, tail)
        self._refuse_changed(name)
        self.directory.write(name, saved)
        self.name, self._version = name, self.directory.version(name)
        return problem

    def _refuse_changed(self, name: str) -> None:
        """Raise SessionError where what another chat kept under our name would be overwritten."""
        kept = self.directory.version(name)
        if name == self.name and kept not in (None, self._version):
            raise SessionError(
                f"session {name} was changed by another chat meanwhile, and is not overwritten: "
                "keep this conversation under another name"
            )

    def save_if_always(self) -> str | None:
        """Save after an answer, where the user asked for that. Returns what went wrong."""
        if not self.always or self.name is None or not self._session.messages:
            return None
        try:
            return self.save(self.name)
        except SessionError as error:
            return str(error)

    def save_at_the_end(self) -> None:
        """Save as the program is ended in mid-answer, where that takes no reading of all weights.

        Nobody is there to be told what goes wrong.
        """
        if self._opened is not None:
            self.save_if_always()

    def load(self, name: str) -> str | None:
        """Go on with a kept conversation. Returns why its cache cannot be used, if so.

        Then the conversation is read again from its messages, with the next question. Raises
        SessionError where the session is missing or damaged; the conversation so far then stays.
        """
        version, saved = self.directory.version(name), self.directory.read(name)
        _, fingerprint = self.open()
        difference = fingerprint.difference(saved.fingerprint)
        conversation = saved.conversation
        if (
            replace(saved.fingerprint, kv=fingerprint.kv, kernels=fingerprint.kernels)
            != fingerprint
        ):
            conversation = replace(conversation, transcript=Transcript())  # other token ids
        self._session.resume(conversation)
        self.name, self._version = name, version
        problem = f"it comes from a run with {difference}" if difference else None
        if problem is None and saved.tail is not None:
            problem = self._session.restore(saved.tail).problem
        return problem and f"the saved cache is not used, or only in part: {problem}"
