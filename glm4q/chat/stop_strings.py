"""Strings that end an answer, wherever the stream is cut."""

from collections.abc import Iterable, Sequence


def unfinished(text: str, strings: Iterable[str]) -> int:
    """Count the last characters of `text` that may be the beginning of one of the strings."""
    longest = max((len(string) - 1 for string in strings), default=0)
    return next(
        (
            size
            for size in range(min(longest, len(text)), 0, -1)
            if any(string.startswith(text[-size:]) for string in strings)
        ),
        0,
    )


class StopStrings:
    """Holds back what may be the beginning of a stop string, and drops what follows one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = [string for string in stop if string]
        self._text = ""
        self.reached: str | None = None
        """The string that has ended the answer."""

    def feed(self, text: str) -> str:
        """Return what is certainly part of the answer."""
        if self.reached or not self._stop:
            return "" if self.reached else text
        self._text += text
        places = {string: place for string in self._stop if (place := self._text.find(string)) >= 0}
        if places:
            self.reached = min(places, key=places.__getitem__)
            certain, self._text = self._text[: places[self.reached]], ""
            return certain
        size = len(self._text) - unfinished(self._text, self._stop)
        certain, self._text = self._text[:size], self._text[size:]
        return certain

    def rest(self) -> str:
        """Return what still waits; the answer has ended."""
        rest, self._text = self._text, ""
        return rest
