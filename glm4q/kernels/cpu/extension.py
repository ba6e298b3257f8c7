"""The compiled extension `glm4q._native`, if it is there and was built from these sources."""

from collections.abc import Iterable
from types import ModuleType

import torch

from calculator.errors import KernelError
from glm4q.kernels.cpu.records import checksum

try:
    from glm4q import _native
except ImportError:
    _native = None  # type: ignore[assignment]

NOT_BUILT = "was not built: the installation found no C++ compiler"
OUTDATED = "was built from other sources: install glm4q again"
REMEDY = "install a C++ compiler (g++ or clang++), then glm4q again with pip's --force-reinstall"


def refuses_extension() -> str | None:
    """Why the compiled functions cannot be used; None if they can."""
    if _native is None:
        return NOT_BUILT
    return None if getattr(_native, "RECORDS_CHECKSUM", 0) == CHECKSUM else OUTDATED


def slow_note(devices: Iterable[torch.device]) -> str | None:
    """A line for users of these devices if the compiled functions are missed there, else None."""
    reason = refuses_extension()
    if reason is None or all(device.type != "cpu" for device in devices):
        return None
    return (
        f"glm4q's fast code for the CPU {reason}. Answers are several times slower; "
        f"to have it, {REMEDY}"
    )


def extension() -> ModuleType | None:
    """The compiled functions; None if `refuses_extension` gives a reason."""
    return None if refuses_extension() else _native


def required_extension() -> ModuleType:
    """The compiled functions. Raises KernelError if they cannot be used."""
    if reason := refuses_extension():
        raise KernelError(f"the extension glm4q._native {reason}")
    return _native


def find_instruction_set(name: str = "auto") -> int:
    """The number of an instruction set of this machine; 0 if it has none of that name.

    name: avx512_bf16, avx512, avx_vnni, avx2, neon or scalar; "auto" means the best one.
    """
    native = extension()
    return native.find_instruction_set(name) if native else 0


def instruction_set_name(number: int) -> str:
    """The name of an instruction set that `find_instruction_set` numbered; "" for 0."""
    native = extension()
    return native.instruction_set_name(number) if native and number else ""


CHECKSUM = checksum()
