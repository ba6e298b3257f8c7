"""The instruction sets of the native extension, forced by name; and a machine that has fewer."""

import sys
from collections.abc import Callable

import pytest
import torch

from glm4q.kernels.choose import KERNELS
from glm4q.kernels.cpu.extension import extension
from glm4q.kernels.cpu.native import Native
from tests.paths import ROOT

X86 = ("avx512_bf16", "avx512", "avx_vnni", "avx2", "scalar")
ARM = ("neon", "scalar")
"""Each list is in the order in which "auto" chooses."""
NAMES = ("scalar", "avx2", "avx_vnni", "avx512", "avx512_bf16", "neon")


def require(name: str) -> str:
    """Skip the test where this machine cannot run that instruction set's code."""
    native = extension()
    if native is None:
        pytest.skip("the native extension was not built")
    if not native.find_instruction_set(name):
        pytest.skip(f"this machine has no {name}")
    return name


@pytest.fixture(params=NAMES)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set of this machine, one after another, as the one that "auto" means."""
    name = require(request.param)
    find_instruction_set = limited(name)
    monkeypatch.setattr(extension(), "find_instruction_set", find_instruction_set)
    for kernel in native_kernels():
        monkeypatch.setattr(kernel, "instruction_set", find_instruction_set("auto"))
    return name


def native_kernels() -> list[Native]:
    """Those of every plan: they asked for the best instruction set when they were imported."""
    return [kernel for kernel in KERNELS if isinstance(kernel, Native)]


def limited(newest: str) -> Callable[[str], int]:
    """`find_instruction_set` as on this machine without instruction sets newer than `newest`."""
    find = getattr(extension(), "find_instruction_set", lambda name: 0)
    order = next((sets for sets in (X86, ARM) if newest in sets), ())
    if not order or not find(newest):
        raise pytest.UsageError(f"this machine has no instruction set {newest}")
    there = order[order.index(newest) :]

    def find_instruction_set(name: str) -> int:
        number = int(find(newest if name == "auto" else name))  # refuses what is no name
        return number if name in ("auto", *there) else 0

    return find_instruction_set


def limit_to(newest: str) -> None:
    """Let this process run as on a machine without instruction sets newer than `newest`.

    torch's own kernels are limited from outside, before torch is imported: `make test-avx2` sets
    ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA.
    """
    find_instruction_set = limited(newest)
    native = extension()
    assert native is not None
    native.find_instruction_set = find_instruction_set  # type: ignore[attr-defined]
    for kernel in native_kernels():
        kernel.instruction_set = find_instruction_set("auto")
    if newest != "avx512_bf16":
        torch.cpu._is_avx512_bf16_supported = lambda: False


def program(newest: str | None) -> list[str]:
    """Begin the command line of a process of glm4q, limited as this one by `--instruction-set`."""
    if newest is None:
        return [sys.executable, "-m", "glm4q"]
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"from tests.instruction_sets import limit_to; limit_to({newest!r})\n"
        "from glm4q.cli import main; sys.exit(main())"
    )
    return [sys.executable, "-c", code]
