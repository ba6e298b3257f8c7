"""Tensors that say `cuda:0` and lie in host memory; their operators go to the simulated device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tests.card.sim.allocator import Allocator, Block

CUDA = torch.device("cuda", 0)


class Device(Protocol):
    """Does what an operator asks of a card."""

    def dispatch(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any: ...


ACTIVE: list[Device] = []
"""The simulated device that is there, if any."""


class DeviceError(RuntimeError):
    """What a card would refuse, or what no recorded step may do."""


@dataclass(eq=False)
class Lease:
    """A block of the card's memory, given back when no tensor lies in it any more."""

    allocator: Allocator
    block: Block

    def __del__(self) -> None:
        self.allocator.free(self.block)


class SimTensor(Tensor):
    """Lies in host memory, and says that it lies on a card."""

    stored: Tensor
    lease: Lease

    @staticmethod
    def __new__(cls, inner: Tensor, lease: Lease) -> "SimTensor":
        with torch.inference_mode(False):  # whose tensors know no views of what was there before
            fresh = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                layout=inner.layout,
                device=CUDA,
            )
        fresh.stored, fresh.lease = inner, lease
        return fresh

    def data_ptr(self) -> int:
        return self.stored.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied: Tensor = self.detach().clone()
        if isinstance(self, nn.Parameter):
            copied = nn.Parameter(copied, requires_grad=self.requires_grad)
        memo[id(self)] = copied
        return copied

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"SimTensor({self.stored!r})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return ACTIVE[-1].dispatch(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


def inner(tree: Any) -> Any:
    """Put the host's tensors in the place of those of the card."""
    return tree_map(lambda each: each.stored if isinstance(each, SimTensor) else each, tree)
