"""Finds where a bracketed text ends while the text still arrives in pieces."""

OPENING, CLOSING = "{[(", "}])"


class BracketScanner:
    """Finds the end of a JSON object, or of the parentheses of a Python call."""

    def __init__(self, quotes: str = '"') -> None:
        """quotes: the characters that begin and end a string, in which brackets mean nothing."""
        self._quotes = quotes
        self._at = self._depth = 0
        self._quote = ""
        self._escaped = False

    def end(self, text: str) -> int | None:
        """Find the place behind the bracket that closes the first one; None while it is missing.

        Each call gets the same text, longer than before: no character is looked at twice.
        """
        while self._at < len(text):
            character = text[self._at]
            self._at += 1
            if self._escaped:
                self._escaped = False
            elif self._quote:
                self._escaped = character == "\\"
                self._quote = "" if character == self._quote else self._quote
            elif character in self._quotes:
                self._quote = character
            elif character in OPENING:
                self._depth += 1
            elif character in CLOSING:
                self._depth -= 1
                if self._depth == 0:
                    return self._at
        return None
