"""A simulated card for torch: tensors that say `cuda:0` and lie in host memory.

Every operator comes by here. What a card refuses is refused: tensors of two devices in one
operator, a wait while a graph is recorded. What a card does silently is noted: waits, copies over
the bus, allocations. Operators run on the host's memory at once; those that a graph records run
when it is replayed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from tests.card.sim.allocator import Allocator
from tests.card.sim.schemas import (
    COPYING,
    INDEXING,
    PRODUCTS,
    WAITING,
    is_composite,
    is_view,
    targets,
    writes,
    written,
)
from tests.card.sim.tensors import ACTIVE, CUDA, DeviceError, Lease, SimTensor, inner
from tests.card.sim.trace import Trace

aten = torch.ops.aten
CUBLAS_WORKSPACE = 4096 * 1024 * 2 + 16 * 1024 * 8
"""Bytes that PyTorch takes for cuBLAS at the first product, from its own allocator."""


class Graph:
    """A recorded graph: work to do again."""

    def __init__(self) -> None:
        self.work: list[Callable[[], object]] = []
        self.names: list[str] = []

    def pool(self) -> tuple[int, int]:
        """The name of the memory that records share."""
        return 0, 1

    def replay(self) -> None:
        device = SimDevice.current()
        device.trace.note("replay", "graph")
        for each in self.work:
            each()


@dataclass
class SimDevice:
    """One card: its memory, what it was asked for, and the graph that it records."""

    allocator: Allocator
    hollow: bool = False
    """Tensors hold nothing: for counting at true sizes."""
    trace: Trace = field(default_factory=Trace)
    recording: Graph | None = None
    pinned: dict[int, torch.UntypedStorage] = field(default_factory=dict)
    """Storages of the host that copies need not wait for, by address. They are kept, so that no
    other storage gets the address of one."""
    in_flight: set[int] = field(default_factory=set)
    """Storages of the host of which copies may still be under way."""
    _workspaces: dict[str, Lease] = field(default_factory=dict)

    @staticmethod
    def current() -> "SimDevice":
        if not ACTIVE:
            raise DeviceError("no simulated device is there")
        return cast(SimDevice, ACTIVE[-1])

    @property
    def workspace_bytes(self) -> int:
        """What stays allocated for cuBLAS."""
        return sum(lease.block.size for lease in self._workspaces.values())

    def wait(self, name: str) -> None:
        """The host waits until the card has done all its work."""
        if self.recording is not None:
            raise DeviceError(f"{name} waits for the device while a graph is recorded")
        self.trace.note("wait", name)
        self.in_flight.clear()

    def wrap(self, stored: Tensor) -> SimTensor:
        """A new tensor of the card. Its memory is allocated here."""
        storage = stored.untyped_storage()
        self.trace.note("allocate", str(tuple(stored.shape)), storage.nbytes())
        if self.recording is not None:
            raise DeviceError("a recorded step allocates memory")
        return SimTensor(stored, Lease(self.allocator, self.allocator.allocate(storage.nbytes())))

    def submit(self, name: str, work: Callable[[], object]) -> None:
        """Do work of the card now, or note it where a graph is recorded."""
        if self.recording is None:
            work()
        else:
            self.recording.names.append(name)
            self.recording.work.append(work)

    def dispatch(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One operator."""
        packet = func.overloadpacket
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        ours = [each for each in tensors if isinstance(each, SimTensor)]
        given = [each for each in args if isinstance(each, torch.device)]
        device = kwargs.get("device", given[0] if given else None)
        to_us = device is not None and torch.device(device).type == "cuda"
        if (ours or to_us) and is_composite(func):
            with SimMode():  # as `to`, which inference mode hands over whole
                return func.decompose(*args, **kwargs)
        if packet in COPYING and (ours or to_us):
            return self._copy(func, args, kwargs)
        if not ours:
            return self._create(func, args, kwargs) if to_us else self._on_host(func, args, kwargs)
        if device is not None and not to_us:
            return func(*inner(args), **inner(kwargs))  # as empty_like on another device
        self._refuse_mixed(packet, func, tensors)
        self._note_waits(packet, func, args)
        if packet in PRODUCTS:
            self._take_workspace()
        with torch.inference_mode(False), torch.no_grad():
            return self._run(func, args, kwargs, ours)

    def _run(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], ours: list[SimTensor]
    ) -> Any:
        if func.overloadpacket is aten._local_scalar_dense and self.hollow:
            return 0
        kwargs = {**kwargs, "device": "meta"} if self.hollow and "device" in kwargs else kwargs
        if "device" in kwargs and not self.hollow:
            kwargs = {**kwargs, "device": "cpu"}
        if writes(func):
            self.trace.note("operator", str(func))
            inner_args, inner_kwargs = inner(args), inner(kwargs)
            shapes = [each.stored.shape for each in ours]
            if not self.hollow:
                self.submit(str(func), lambda: func(*inner_args, **inner_kwargs))
            if [each.stored.shape for each in ours] != shapes:
                raise DeviceError(f"{func} resizes what it writes to")
            return written(func, args, kwargs)
        if self.recording is not None and not is_view(func):
            raise DeviceError(f"a recorded step allocates memory: {func}")
        result = func(*inner(args), **inner(kwargs))
        if not is_view(func):
            self.trace.note("operator", str(func))
        return tree_map(lambda each: self._adopt(each, ours), result)

    def _adopt(self, result: Any, ours: list[SimTensor]) -> Any:
        if not isinstance(result, Tensor):
            return result
        for each in ours:
            if result is each.stored:
                return each
        key = result.untyped_storage()._cdata
        for each in ours:
            if each.stored.untyped_storage()._cdata == key:
                return SimTensor(result, each.lease)
        return self.wrap(result)

    def _create(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        where = {**kwargs, "device": torch.device("meta" if self.hollow else "cpu")}
        with torch.inference_mode(False), torch.no_grad():
            fresh = func(
                *args, **{**where, "pin_memory": False} if "pin_memory" in where else where
            )
        if str(func).startswith("aten.empty") and not self.hollow:
            _fill_with_nothing(fresh)
        return self.wrap(fresh)

    def _on_host(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        pin = kwargs.get("pin_memory")
        if func.overloadpacket in (aten._pin_memory, aten.is_pinned):
            raise DeviceError(f"{func} is not played")
        if writes(func) and self.in_flight:
            for each in targets(func, args, kwargs):
                if each.untyped_storage()._cdata in self.in_flight:
                    raise DeviceError(f"{func} writes to pinned memory that is still copied")
        fresh = func(*args, **{**kwargs, "pin_memory": False} if pin else kwargs)
        if pin:
            storage = fresh.untyped_storage()
            self.pinned[storage._cdata] = storage
        return fresh

    def _copy(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if func.overloadpacket is aten._to_copy:
            return self._to(args[0], kwargs)
        target, source = args[0], args[1]
        non_blocking = bool(args[2]) if len(args) > 2 else bool(kwargs.get("non_blocking"))
        if isinstance(target, SimTensor) and isinstance(source, SimTensor):
            ours, given = target.stored, source.stored
            self.trace.note("operator", str(func))
            self.submit(str(func), lambda: ours.copy_(given))
        else:
            self._cross(target, source, non_blocking)
        return target

    def _cross(self, target: Tensor, source: Tensor, non_blocking: bool) -> None:
        down = isinstance(source, SimTensor)
        host = target if down else source
        if self.recording is not None:
            raise DeviceError("a recorded step copies between the host and the device")
        size = source.numel() * source.element_size()
        self.trace.note("to host" if down else "to device", str(tuple(source.shape)), size)
        storage = host.untyped_storage()._cdata
        if non_blocking and storage in self.pinned:
            self.in_flight.add(storage)
        else:
            pageable = "pinned" if storage in self.pinned else "pageable"
            self.wait(f"copy of {pageable} memory")
        if not self.hollow:
            there = target.stored if isinstance(target, SimTensor) else target
            there.copy_(source.stored if isinstance(source, SimTensor) else source)

    def _to(self, source: Tensor, kwargs: dict[str, Any]) -> Tensor:
        wanted = torch.device(kwargs.get("device") or source.device)
        dtype = kwargs.get("dtype") or source.dtype
        up = wanted.type == "cuda"
        place = torch.device("meta" if self.hollow and up else "cpu")
        given = source.stored if isinstance(source, SimTensor) else source
        with torch.inference_mode(torch.is_inference_mode_enabled() and not up):
            # Nothing stands behind a hollow tensor: what is read from it is 0, and not what chance
            # left in the memory of the copy.
            make = torch.zeros_like if self.hollow and not up else torch.empty_like
            fresh = make(given, dtype=dtype, device=place)
        target: Tensor = self.wrap(fresh) if up else fresh
        staged = source
        if isinstance(source, SimTensor) != up and dtype != source.dtype:
            # The card converts: what crosses the bus has the source's dtype.
            if up:
                return self._to(self._to(source, {"device": CUDA}), {"dtype": dtype, **kwargs})
            staged = self._to(source, {"dtype": dtype})
        self._copy(aten.copy_.default, (target, staged, kwargs.get("non_blocking", False)), {})
        return target

    def _refuse_mixed(self, packet: Any, func: Any, tensors: list[Tensor]) -> None:
        strangers = [each for each in tensors if not isinstance(each, SimTensor) and each.dim()]
        if strangers and packet not in INDEXING:
            shapes = ", ".join(str(tuple(each.shape)) for each in strangers)
            raise DeviceError(
                f"Expected all tensors to be on the same device: {func} takes {shapes} of the host"
            )

    def _note_waits(self, packet: Any, func: Any, args: Sequence[Any]) -> None:
        if packet in WAITING:
            self.wait(str(func))
        if packet in INDEXING:
            for each in args[1]:
                if each is None:
                    continue
                if each.dtype in (torch.bool, torch.uint8):
                    self.wait(f"{func} by a mask")
                elif not isinstance(each, SimTensor) and each.dim():
                    self.trace.note("to device", "indices", each.numel() * each.element_size())
                    self.wait(f"{func} by indices of the host")

    def _take_workspace(self) -> None:
        """Keep a workspace for the stream of plain work, and one for that of recorded work."""
        stream = "plain" if self.recording is None else "recorded"
        if stream not in self._workspaces:
            self.trace.note("allocate", "cuBLAS", CUBLAS_WORKSPACE)
            block = self.allocator.allocate(CUBLAS_WORKSPACE)
            self._workspaces[stream] = Lease(self.allocator, block)


class SimMode(TorchDispatchMode):
    """Sends every operator to the simulated device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return SimDevice.current().dispatch(func, args, kwargs or {})


def _fill_with_nothing(tensor: Tensor) -> None:
    """Not a number in every floating type, so that what is read unwritten shows."""
    tensor.new_empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).fill_(255)
