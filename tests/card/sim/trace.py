"""What a simulated device was asked for: waits, copies, allocations, launches, and by whom."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from tests.paths import ROOT

Kind = Literal["wait", "to device", "to host", "allocate", "launch", "operator", "replay"]
PACKAGES = tuple(str(ROOT / name) for name in ("glm4q", "quantize", "calculator"))


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    kind: Kind
    name: str
    size: int
    """Bytes."""
    place: str
    """The innermost line of the product."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.size} B) at {self.place}"


@dataclass
class Trace:
    """Events in their order."""

    events: list[Event] = field(default_factory=list)

    def note(self, kind: Kind, name: str, size: int = 0) -> None:
        self.events.append(Event(kind, name, size, _place()))

    def of(self, *kinds: Kind) -> list[Event]:
        return [event for event in self.events if event.kind in kinds]

    def bytes(self, *kinds: Kind) -> int:
        return sum(event.size for event in self.of(*kinds))

    @contextmanager
    def only(self) -> Iterator["Trace"]:
        """Yields a trace of what happens meanwhile."""
        kept, self.events = self.events, []
        part = Trace(self.events)
        try:
            yield part
        finally:
            self.events = kept + part.events


def _place() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGES):
            return f"{file.removeprefix(str(ROOT))[1:]}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "outside the product"
