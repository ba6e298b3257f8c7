"""Machine code for Blackwell: no instruction reads a register before it is written, by basalt-sass.

On that architecture nothing but the compiler's own numbers makes an instruction wait. basalt holds
these numbers against what it measured on a card, and against the smallest number of cycles that
NVIDIA's compiler leaves between two instructions in 25,634 kernels. Two instructions that it has
seen side by side a few times only prove nothing: the compiler may have had other work to do between
them. basalt itself says that fewer than eight times are no evidence, yet it believes an exact pair
however rare (`UMOV -> UFSEL`: 5 cycles, seen once; `UMOV` before any other instruction: 2 cycles,
seen 86,507 times). So a rare pair is left out of its table where the first of the two instructions
has been seen often enough with other readers; basalt then takes the smallest of those numbers.
Only errors count: a warning rests on a latency that basalt assumes, or on how soon a register that
was read is written again, which it has measured for one pair of instructions alone.
"""

from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")
pytest.importorskip("basalt", reason="basalt-sass is not installed")

from basalt.cli import main
from basalt.paths import OBSERVED_STALLS
from basalt.verify.observed import ObservedStalls

from benchmarks.gpu_compiled import BIN, compile_for
from benchmarks.gpu_launches import KVS, decode, prompts, several

pytestmark = pytest.mark.card
BLACKWELL = 120


@pytest.fixture(scope="module")
def often_seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write basalt's table without rare pairs of which the first instruction is well known."""
    table = ObservedStalls.read(OBSERVED_STALLS)
    known = {name for name, seen in table.by_producer.items() if seen.trusted}
    rare = [pair for pair, seen in table.by_pair.items() if not seen.trusted and pair[0] in known]
    assert 0 < len(rare) < len(table.by_pair) / 4
    for pair in rare:
        del table.by_pair[pair]
    file = tmp_path_factory.mktemp("basalt") / "stalls.json"
    table.write(file)
    return file


def verified(file: Path, table: Path) -> int:
    """Return basalt's exit status, which is 2 where it finds an error."""
    return main(["--cuda-bin", str(BIN), "verify", "--strict", "--observed", str(table), str(file)])


def test_every_kernel_waits_for_what_it_reads(tmp_path: Path, often_seen: Path) -> None:
    launches = *decode(BLACKWELL, KVS), *several(BLACKWELL), *prompts(BLACKWELL)
    cubins = {compile_for(launch, BLACKWELL).cubin: name for name, launch in launches}
    assert cubins
    for cubin, name in cubins.items():
        file = tmp_path / "kernel.cubin"
        file.write_bytes(cubin)
        assert verified(file, often_seen) == 0, name


def test_an_instruction_that_does_not_wait_is_an_error(tmp_path: Path, often_seen: Path) -> None:
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
    assert verified(file, often_seen) == 2


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
