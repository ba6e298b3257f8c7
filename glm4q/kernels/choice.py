"""How a kernel is chosen: the first of an ordered list that does not refuse."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from calculator.errors import KernelError


class Candidate(Protocol):
    """A member of a list to choose from."""

    @property
    def name(self) -> str:
        """The name under which it is shown, and asked for."""

    def refuses(self, spec: Any, /) -> str | None:
        """Why it does not serve, or None where it does."""


K = TypeVar("K", bound=Candidate)


@dataclass(frozen=True)
class Choice(Generic[K]):
    """The kernel that was chosen, and why those before it in the list were not."""

    kernel: K
    refusals: tuple[str, ...]


def choose_first(spec: Any, kernels: Sequence[K]) -> Choice[K]:
    """Choose the first kernel that takes the spec. Raises KernelError with every refusal."""
    refusals: list[str] = []
    for kernel in kernels:
        reason = kernel.refuses(spec)
        if reason is None:
            return Choice(kernel, tuple(refusals))
        refusals.append(f"{kernel.name} {reason}")
    raise KernelError(f"no kernel takes {spec}: {'; '.join(refusals)}")
