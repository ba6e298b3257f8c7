"""A Triton launch compiled for a card that is not here, and what its machine code says.

Nothing is run: ptxas, cuobjdump and nvdisasm come inside Triton's wheel and need no GPU.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

from glm4q.kernels.gpu.launch import Argument, Launch

BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TYPES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int8: "i8",
    torch.uint8: "u8",
}
WARP = 32
LABEL = re.compile(r"(\.L\w*):")
INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")
TARGET = re.compile(r"BRA.*`\((\.L\w*)\)")
DIVISIBLE = 16
"""Triton compiles for whether pointers and numbers are multiples of 16, and for ones."""


@dataclass(frozen=True)
class Compiled:
    """A kernel for one architecture."""

    launch: Launch
    capability: int
    cubin: bytes
    shared_bytes: int
    ptx: str

    @cached_property
    def registers(self) -> int:
        """Registers of each thread."""
        return self._resource("REG")

    @cached_property
    def spilled_bytes(self) -> int:
        """What did not fit into registers, of each thread."""
        return self._resource("STACK") + self._resource("LOCAL")

    @cached_property
    def loop(self) -> tuple[str, ...]:
        """The longest run of instructions, by name, that a branch at its end goes back over."""
        return max(_loops(self.listing), key=len, default=())

    @cached_property
    def listing(self) -> str:
        """The machine code."""
        return _run("nvdisasm", "-c", cubin=self.cubin)

    @cached_property
    def _resources(self) -> str:
        return _run("cuobjdump", "--dump-resource-usage", cubin=self.cubin)

    def _resource(self, name: str) -> int:
        (number,) = re.findall(rf"\b{name}:(\d+)", self._resources)
        return int(number)


def compile_for(launch: Launch, capability: int) -> Compiled:
    """Compile as Triton's own launcher does on a card of that compute capability, such as 75."""
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], object] = {}
    attributes = {}
    for place, parameter in enumerate(launch.kernel.params):
        name = parameter.name
        if name in launch.constants:
            signature[name], constants[(place,)] = "constexpr", launch.constants[name]
            continue
        argument = launch.arguments[name]
        if parameter.do_not_specialize:
            signature[name] = _type(argument)
            continue
        if argument is None or (isinstance(argument, int) and argument == 1):
            signature[name], constants[(place,)] = "constexpr", argument
            continue
        signature[name] = _type(argument)
        number = argument.data_ptr() if isinstance(argument, Tensor) else argument
        if number % DIVISIBLE == 0:
            attributes[(place,)] = [["tt.divisibility", DIVISIBLE]]
    source = GluonASTSource if launch.kernel.is_gluon() else ASTSource
    compiled = triton.compile(
        source(launch.kernel, signature, constants, attributes),
        target=GPUTarget("cuda", capability, WARP),
        options={"num_warps": launch.warps, "num_stages": launch.stages},
    )
    return Compiled(
        launch, capability, compiled.asm["cubin"], compiled.metadata.shared, compiled.asm["ptx"]
    )


def _type(argument: Argument) -> str:
    if isinstance(argument, Tensor):
        return f"*{TYPES[argument.dtype]}"
    return "fp32" if isinstance(argument, float) else "i32"


def _run(tool: str, *options: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(BIN / tool), *options, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _loops(listing: str) -> Iterator[tuple[str, ...]]:
    """Every run of instructions from a label to a later branch to it."""
    names: list[str] = []
    labels: dict[str, int] = {}
    for line in listing.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(names)
        elif instruction := INSTRUCTION.match(line):
            names.append(instruction[1])
            if (target := TARGET.search(line)) and target[1] in labels:
                yield tuple(names[labels[target[1]] :])
