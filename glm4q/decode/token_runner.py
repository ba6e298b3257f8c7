"""What decoding needs of a model."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from calculator.errors import NumericError
from glm4q.memory.allocation import Memory
from glm4q.memory.kv.cache import KVCache


class MixedRunner(Protocol):
    """Runs answers that go on and prompts in one step: `MixedSteps`."""

    @property
    def most(self) -> int:
        """New tokens of a step, all sequences together."""

    def __call__(
        self,
        newest: Tensor,
        decoding: Sequence[KVCache],
        prompts: Tensor,
        prompted: Sequence[KVCache],
        /,
    ) -> Tensor: ...


class TokenRunner(Protocol):
    """What decoding needs of a model: a `Runner`, or a test's script."""

    memory: Memory

    @property
    def mixed(self) -> MixedRunner | None:
        """None where answers that go on and prompts have steps of their own."""

    @property
    def recorded_prompts(self) -> tuple[int, ...]:
        """Tokens of one prompt, in ascending order, up to which it is run by a record: faster than
        beside others.
        """

    def __call__(
        self, input_ids: Tensor, caches: Sequence[KVCache], /, last: int = 1
    ) -> Tensor: ...

    def find_overflow(self, token_ids: Sequence[int], cache: KVCache, /) -> NumericError:
        """Say where the numbers of a sequence begin not to be finite."""
