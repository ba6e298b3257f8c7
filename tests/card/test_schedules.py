"""Machine code for Blackwell: no instruction reads a register before it is written, by basalt-sass.

On that architecture nothing but the compiler's own numbers makes an instruction wait.
"""

from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")
pytest.importorskip("basalt", reason="basalt-sass is not installed")

from basalt.cli import main

from benchmarks.gpu_compiled import BIN, compile_for
from benchmarks.gpu_launches import KVS, decode, prompts, several

pytestmark = pytest.mark.card
BLACKWELL = 120


def test_every_kernel_waits_for_what_it_reads(tmp_path: Path) -> None:
    launches = *decode(BLACKWELL, KVS), *several(BLACKWELL), *prompts(BLACKWELL)
    cubins = {compile_for(launch, BLACKWELL).cubin: name for name, launch in launches}
    assert cubins
    for cubin, name in cubins.items():
        file = tmp_path / "kernel.cubin"
        file.write_bytes(cubin)
        assert main(["--cuda-bin", str(BIN), "verify", "--strict", str(file)]) == 0, name


def test_an_instruction_that_does_not_wait_is_an_error(tmp_path: Path) -> None:
    """What the checker is worth: every wait of a kernel is cut to one cycle."""
    _, launch = next(iter(decode(BLACKWELL)))
    cubin = bytearray(compile_for(launch, BLACKWELL).cubin)
    start, size = _text_section(cubin)
    for place in range(start, start + size, 16):
        word = int.from_bytes(cubin[place : place + 16], "little")
        word = word & ~(15 << 105) | 1 << 105
        cubin[place : place + 16] = word.to_bytes(16, "little")
    file = tmp_path / "kernel.cubin"
    file.write_bytes(cubin)
    assert main(["--cuda-bin", str(BIN), "verify", "--strict", str(file)]) == 2


def _text_section(cubin: bytearray) -> tuple[int, int]:
    """Where the one kernel's code lies in its ELF file."""

    def number(place: int, size: int) -> int:
        return int.from_bytes(cubin[place : place + size], "little")

    table, each, count, names = number(40, 8), number(58, 2), number(60, 2), number(62, 2)
    sections = [table + each * place for place in range(count)]
    texts = number(sections[names] + 24, 8)
    (section,) = (
        section for section in sections if cubin[texts + number(section, 4) :].startswith(b".text.")
    )
    return number(section + 24, 8), number(section + 32, 8)
