"""What the Tab key completes: commands, what stands behind /set, /kv and /file, and paths at @."""

from collections.abc import Iterable, Sequence

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from calculator.model.formats import KV_FORMATS
from glm4q.terminal.settings import setting_names


class QuestionCompleter(Completer):
    """Completes the word before the cursor."""

    def __init__(self, commands: Sequence[str]) -> None:
        self._commands = commands
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        before = document.text_before_cursor
        if before.startswith("/file "):
            yield from self._complete_path(before.removeprefix("/file ").lstrip(), event)
        elif before.startswith("/set "):
            yield from _matching(before.removeprefix("/set ").lstrip(), setting_names())
        elif before.startswith("/kv "):
            yield from _matching(before.removeprefix("/kv ").lstrip(), KV_FORMATS)
        elif before.startswith("/") and " " not in before:
            yield from _matching(before, self._commands)
        elif (word := document.get_word_before_cursor(WORD=True)).startswith("@"):
            yield from self._complete_path(word[1:], event)

    def _complete_path(self, start: str, event: CompleteEvent) -> Iterable[Completion]:
        return self._paths.get_completions(Document(start), event)


def _matching(start: str, names: Iterable[str]) -> Iterable[Completion]:
    return (Completion(name, -len(start)) for name in names if name.startswith(start))
