"""`torch.cuda` played for a named card, and Triton's launches run by the PTX machine."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from calculator.cards.gpus import find_gpu
from calculator.memory.plan import CUDA_CONTEXT_BYTES
from glm4q.kernels import cuda
from glm4q.kernels.gpu.launch import Launch
from tests.card.build import guard
from tests.card.ptx.machine import Options
from tests.card.sim.allocator import Allocator
from tests.card.sim.device import Graph, SimDevice, SimMode
from tests.card.sim.tensors import ACTIVE, DeviceError, SimTensor
from tests.card.triton_driver import PlayedDriver, played_driver

MIB = 1 << 20


class PlayedEvent:
    """Is reached once the copies that were under way when it was recorded are done."""

    def __init__(self, **_: object) -> None:
        self._before: set[int] = set()

    def record(self, stream: object = None) -> None:
        self._before = set(SimDevice.current().in_flight)

    def wait(self, stream: object = None) -> None:
        """One stream waits for another: the host does not."""

    def synchronize(self) -> None:
        device = SimDevice.current()
        if device.in_flight & self._before:
            device.wait("event.synchronize")

    def elapsed_time(self, other: "PlayedEvent") -> float:
        """Milliseconds; nothing takes time here."""
        return 1.0

    def query(self) -> bool:
        return not SimDevice.current().in_flight & self._before


@contextmanager
def _graph(graph: Graph, **_: object) -> Iterator[None]:
    """Record work instead of doing it. As torch does, wait and empty the cache before."""
    device = SimDevice.current()
    device.wait("torch.cuda.graph")
    device.allocator.empty_cache()
    device.recording = graph
    try:
        yield
    finally:
        device.recording = None


def _unwrap(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, SimTensor):
        raise DeviceError("Pointer argument cannot be accessed from Triton (cpu tensor?)")
    return tensor.stored


def _functions(device: SimDevice, name: str, capability: tuple[int, int]) -> dict[str, Any]:
    memory = device.allocator
    properties = SimpleNamespace(
        name=name,
        major=capability[0],
        minor=capability[1],
        total_memory=memory.capacity + CUDA_CONTEXT_BYTES,
        uuid="00000000-0000-0000-0000-000000000000",
        multi_processor_count=64,
    )
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: name,
        "get_device_capability": lambda device=None: capability,
        "get_device_properties": lambda device=None: properties,
        "is_bf16_supported": lambda including_emulation=True: capability >= (8, 0),
        "mem_get_info": lambda device=None: (
            memory.capacity - memory.reserved,
            memory.capacity + CUDA_CONTEXT_BYTES,
        ),
        "memory_allocated": lambda device=None: memory.allocated,
        "max_memory_allocated": lambda device=None: memory.peak_allocated,
        "memory_reserved": lambda device=None: memory.reserved,
        "max_memory_reserved": lambda device=None: memory.peak_reserved,
        "reset_peak_memory_stats": lambda device=None: memory.reset_peaks(),
        "empty_cache": memory.empty_cache,
        "synchronize": lambda device_=None: device.wait("torch.cuda.synchronize"),
        "Event": PlayedEvent,
        "CUDAGraph": Graph,
        "graph": _graph,
    }


@contextmanager
def simulated_card(
    name: str, *, hollow: bool = False, expandable: bool = False, free: int | None = None
) -> Iterator[tuple[SimDevice, PlayedDriver]]:
    """A card of gpus.csv is there meanwhile. hollow: its tensors hold nothing, and nothing runs.

    free: bytes that the driver can give; all but the context where it is None.
    """
    gpu = find_gpu(name)
    major, _, minor = str(gpu.compute_capability).partition(".")
    capability = int(major), int(minor or 0)
    capacity = free if free is not None else gpu.reported_bytes - CUDA_CONTEXT_BYTES
    device = SimDevice(Allocator(capacity, expandable=expandable), hollow=hollow)
    cuda.refuses_triton.cache_clear()
    with ExitStack() as stack:
        for known, function in _functions(device, gpu.name, capability).items():
            stack.enter_context(patch.object(torch.cuda, known, function))
        stack.enter_context(patch.object(torch, "Generator", HostGenerator))
        number = 10 * capability[0] + capability[1]
        driver = stack.enter_context(
            played_driver(number, unwrap=_unwrap, submit=device.submit, options=Options())
        )
        if hollow:
            stack.enter_context(patch.object(Launch, "run", _count_only))
        driver.on_launch = lambda launched: device.trace.note("launch", launched.name)
        if not torch.backends.cuda.is_built():
            guard().register_card()
            stack.callback(guard().unregister_card)
        ACTIVE.append(device)
        stack.callback(ACTIVE.remove, device)
        stack.enter_context(SimMode())
        try:
            yield device, driver
        finally:
            cuda.refuses_triton.cache_clear()


def _count_only(launch: Launch) -> None:
    """A launch of which only its device is checked."""
    device = SimDevice.current()
    for argument in launch.arguments.values():
        if isinstance(argument, Tensor):
            _unwrap(argument)
    name = launch.kernel.__name__
    device.submit(name, lambda: device.trace.note("launch", name))


class HostGenerator(torch.Generator):
    """Random numbers of the card come from the host's generator."""

    def __new__(cls, device: object = "cpu") -> "HostGenerator":
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]
