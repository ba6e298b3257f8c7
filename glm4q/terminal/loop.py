"""The chat in a terminal: read a question or a command, answer it, and say how it went."""

from contextlib import AbstractContextManager, nullcontext

from calculator.errors import ContextFullError, Glm4qError
from glm4q.terminal import figures
from glm4q.terminal.commands import BY_NAME, Leave
from glm4q.terminal.keyboard import files
from glm4q.terminal.keyboard.input import EditorReader, Entry, Reader
from glm4q.terminal.keyboard.typed_ahead import keys_wait
from glm4q.terminal.screen.progress import with_progress
from glm4q.terminal.screen.reply import ReplyView
from glm4q.terminal.state import State


class Terminal:
    """Reads questions and shows answers until the user leaves."""

    def __init__(self, state: State, reader: Reader) -> None:
        self._state, self._reader = state, reader

    def run(self) -> None:
        """Read and answer until /exit or Ctrl-D."""
        with self._keys():
            self._converse()

    def _converse(self) -> None:
        self._state.note("/help lists what you can type.")
        while (entry := self._read()) is not None:
            try:
                self._take(entry)
            except Leave:
                return
            except Glm4qError as error:
                self._state.fail(str(error))

    def _read(self) -> Entry | None:
        """Read an entry. It is empty after Ctrl-C, and None at the end of input."""
        draft, self._state.draft = self._state.draft, ""
        try:
            return self._reader.read(draft)
        except KeyboardInterrupt:
            self._state.console.print()
            return Entry("")
        except EOFError:
            self._state.console.print()
            return None

    def _take(self, entry: Entry) -> None:
        """Do what a command says, or ask what is no command."""
        if not entry.text:
            return
        name, _, argument = entry.text.partition(" ")
        question: str | None
        if entry.is_block or not name.startswith("/") or not _may_be_command(name):
            question = self._with_files(entry.text)
        elif name in BY_NAME:
            question = BY_NAME[name].act(self._state, argument.strip())
        else:
            self._state.say(f"{name} is not a command; /help lists them")
            return
        if question is not None:
            self._state.pending = ""
            try:
                self._answer(question)
            except ContextFullError as full:
                self._state.pending = question
                self._state.fail(figures.context_full(self._state, full))

    def _with_files(self, question: str) -> str:
        """Put the files that a question names before it, and say how many tokens they have."""
        texts = {path: files.read_text(path) for path in files.mentioned_files(question)}
        if not texts:
            return question
        count = self._state.run.count_tokens
        self._state.note(files.counts({path: count(text) for path, text in texts.items()}))
        return files.with_files(question, texts)

    def _answer(self, question: str) -> None:
        """Answer a question, say how it went, and save where that is to be done."""
        try:
            self._show_answer(question)
        except (SystemExit, OSError):  # terminated, or the terminal has gone
            self._state.keeper.save_at_the_end()
            raise

    def _show_answer(self, question: str) -> None:
        state = self._state
        try:
            view = ReplyView(state.console, state.console, raw=state.raw, think=state.think)
            events = state.session.stream(question, state.params)
            view.show(with_progress(events, state.console, state.session.prompt_progress))
        except KeyboardInterrupt:
            state.note("stopped")
        state.note((figures.details if state.verbose else figures.status)(state.session))
        if repetition := figures.repetition(state.session):
            state.say(repetition, "yellow")
        if problem := state.keeper.save_if_always():
            state.say(problem, "yellow")
        if warning := figures.warning(state.session):
            state.say(warning, "yellow")

    def _keys(self) -> AbstractContextManager[None]:
        """Keep what is typed meanwhile, where an editor reads it afterwards."""
        return keys_wait() if isinstance(self._reader, EditorReader) else nullcontext()


def _may_be_command(name: str) -> bool:
    """Return whether a word is a command or a mistyped one, and no path such as /etc/hosts."""
    return name in BY_NAME or name[1:].isalpha()
