"""A played driver for Triton: it compiles for a card that is not here, and the PTX machine runs it.

Triton's own launcher decides what it compiles a kernel for: dtypes, which pointers and numbers are
multiples of 16, which numbers are 1. So what the compiler takes for granted is tested as well.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime.driver import driver

from benchmarks.gpu_architectures import ARCHITECTURES, WARP
from tests.card.ptx.machine import Account, Options, run
from tests.card.ptx.program import Program, parse

MOST_THREADS = 1024
"""The most threads of a block, on every architecture."""
Unwrap = Callable[[Tensor], Tensor]
Block = tuple[int, int, int]
SomeBlocks = Callable[[str, tuple[int, int, int]], "Sequence[Block] | None"]


@dataclass(frozen=True)
class Launched:
    """One kernel that ran."""

    name: str
    grid: tuple[int, int, int]
    arguments: tuple[object, ...]
    """Without constants; tensors as they were handed in."""
    account: Account


@dataclass(frozen=True)
class Loaded:
    """A compiled kernel, ready to run."""

    ptx: str
    shared_bytes: int


@dataclass
class Utils:
    """What Triton asks of a driver to load code."""

    capability: int
    ptx: Path | None = None

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": ARCHITECTURES[self.capability].shared_block}

    def load_binary(
        self, name: str, cubin: bytes, shared_bytes: int, device: int
    ) -> tuple[None, Loaded, int, int, int]:
        """Module, function, registers, spilled bytes and most threads."""
        if self.ptx is None:
            raise RuntimeError(f"no PTX was stored beside {name}")
        return None, Loaded(self.ptx.read_text(), shared_bytes), 0, 0, MOST_THREADS


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _as_it_is(ptx: str) -> str:
    return ptx


def _at_once(name: str, work: Callable[[], None]) -> None:
    work()


@dataclass
class PlayedDriver(DriverBase):
    """A card of that compute capability, as 86 for 8.6."""

    capability: int
    options: Options = field(default_factory=Options)
    unwrap: Unwrap = _itself
    """Hands out the host memory of a tensor of a simulated device."""
    blocks: SomeBlocks | None = None
    """Which blocks of a kernel run, by its name and its grid: None, or where it says None, all."""
    submit: Callable[[str, Callable[[], None]], None] = _at_once
    """Does a launch's work, or notes it for a graph."""
    mutate: Callable[[str], str] = _as_it_is
    """Changes a kernel before it runs: to see that a mistake is caught."""
    on_launch: Callable[[Launched], None] | None = None
    launched: list[Launched] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.utils = Utils(self.capability)

    @property
    def launcher_cls(self) -> Callable[[Any, Any], Callable[..., None]]:
        return lambda source, metadata: self._launcher(source)

    def _launcher(self, source: Any) -> Callable[..., None]:
        known = [kind != "constexpr" for kind in source.signature.values()]

        def launch(x: int, y: int, z: int, stream: int, loaded: Loaded, *rest: Any) -> None:
            played = driver.active  # the launcher outlives the driver that made it
            _, _, _, _, *bound = rest
            given = tuple(each for each, taken in zip(bound, known, strict=True) if taken)
            played.start(loaded, (x, y, z), given)

        return launch

    def start(self, loaded: Loaded, grid: tuple[int, int, int], given: tuple[Any, ...]) -> None:
        """Hand over one launch, as a stream does."""
        program = parse(self.mutate(loaded.ptx))
        self.submit(program.name, lambda: self._run(program, loaded.shared_bytes, grid, given))

    def _run(
        self,
        program: Program,
        shared_bytes: int,
        grid: tuple[int, int, int],
        given: tuple[Any, ...],
    ) -> None:
        """Run it on the machine, and keep what it did."""
        arguments = [self.unwrap(each) if isinstance(each, Tensor) else each for each in given]
        name, options = program.name, self.options
        if self.blocks is not None:
            chosen = self.blocks(name, grid)
            options = Options(chosen, noisy=options.noisy, backwards=options.backwards)
        account = run(program, grid, arguments, shared_bytes, options)
        self.launched.append(Launched(name, grid, given, account))
        if self.on_launch is not None:
            self.on_launch(self.launched[-1])

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, WARP)

    def get_current_device(self) -> int:
        """Compiled kernels are kept for each device: so each capability is one of its own."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", 0)

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise NotImplementedError("the machine needs no C++ launcher")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError("nothing is timed here")


@contextmanager
def played_driver(capability: int, **settings: Any) -> Iterator[PlayedDriver]:
    """Triton starts its kernels on the PTX machine meanwhile."""
    played, before = PlayedDriver(capability, **settings), driver._active

    def remember(module: Any, function: Any, name: str, files: dict[str, str], key: str) -> None:
        played.utils.ptx = next(Path(file) for file in files.values() if str(file).endswith(".ptx"))

    knobs.runtime.kernel_load_start_hook.add(remember)
    driver._active = played
    try:
        yield played
    finally:
        driver._active = before
        knobs.runtime.kernel_load_start_hook.remove(remember)
