"""The compiled extension `glm4q._native`, if it is there and was built from these sources."""

from types import ModuleType

from calculator.errors import KernelError
from glm4q.kernels.cpu.records import checksum

try:
    from glm4q import _native
except ImportError:
    _native = None  # type: ignore[assignment]

NOT_BUILT = "was not built: the installation found no C++ compiler"
OUTDATED = "was built from other sources: install glm4q again"


def refuses_extension() -> str | None:
    """Why the compiled functions cannot be used; None if they can."""
    if _native is None:
        return NOT_BUILT
    return None if getattr(_native, "RECORDS_CHECKSUM", 0) == CHECKSUM else OUTDATED


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

    name: avx512_bf16, avx512, avx2, neon or scalar; "auto" means the best one.
    """
    native = extension()
    return native.find_instruction_set(name) if native else 0


CHECKSUM = checksum()
