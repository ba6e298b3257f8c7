"""The records that cross into C++, and the opcodes that it knows."""

import ctypes
from dataclasses import dataclass
from functools import cache

from tests.card.build import machine as library

OPERANDS = 14
LANES = 32
FLAGS = {"SIGNED": 1, "TRANSPOSED": 2, "LABELLED": 4}
int32, int64 = ctypes.c_int32, ctypes.c_int64


class Line(ctypes.Structure):
    """One instruction; machine.h says what the fields mean."""

    _fields_ = (
        ("opcode", int32),
        ("predicate", int32),
        ("negated", int32),
        ("operand", int32 * OPERANDS),
        ("size", int32),
        ("count", int32),
        ("width", int32),
        ("flags", int32),
        ("used_bytes", ctypes.c_uint32),
        ("target", int32),
        ("offset", int64),
    )


class LineCount(ctypes.Structure):
    """What one instruction did, over all blocks."""

    _fields_ = tuple(
        (name, int64) for name in ("warps", "sectors", "bytes", "wavefronts", "ideal", "worst")
    )


class Counts(ctypes.Structure):
    """What a launch did."""

    _fields_ = tuple(
        (name, int64)
        for name in (
            "warp_instructions",
            "load_sectors",
            "merged_sectors",
            "merged_bytes",
            "unique_sectors",
            "unique_bytes",
            "store_sectors",
            "store_bytes",
            "barriers",
        )
    )


class Region(ctypes.Structure):
    """Memory that a launch may touch."""

    _fields_ = (("base", ctypes.c_uint64), ("size", ctypes.c_uint64))


class Job(ctypes.Structure):
    """A launch; it is called `Launch` in machine.h."""

    _fields_ = (
        ("lines", ctypes.POINTER(Line)),
        ("line_count", int64),
        ("rows", ctypes.c_void_p),
        ("row_bytes", int64),
        ("parameters", ctypes.c_void_p),
        ("parameter_bytes", int64),
        ("regions", ctypes.POINTER(Region)),
        ("region_count", int64),
        ("blocks", ctypes.POINTER(int64)),
        ("block_count", int64),
        ("grid", int32 * 3),
        ("threads", int32),
        ("shared_bytes", int32),
        ("special", int32 * 8),
        ("noisy", int32),
        ("backwards", int32),
        ("counts", ctypes.POINTER(Counts)),
        ("line_counts", ctypes.POINTER(LineCount)),
        ("fault_line", int64),
        ("fault", ctypes.c_char * 512),
    )


@dataclass(frozen=True)
class Opcode:
    """An instruction that the machine knows."""

    index: int
    bytes: tuple[int, ...]
    """Bytes of each operand's numbers: 0 for any, -1 where there is no operand."""


@cache
def opcodes() -> dict[str, Opcode]:
    """Every instruction by name."""
    machine = library()
    machine.opcode_name.restype = ctypes.c_char_p
    machine.opcode_bytes.restype = ctypes.POINTER(ctypes.c_int8)
    for which, record in enumerate((Line, Job, Counts, LineCount)):
        if machine.record_bytes(which) != ctypes.sizeof(record):
            raise RuntimeError(f"{record.__name__} differs from machine.h")
    return {
        machine.opcode_name(index).decode(): Opcode(
            index, tuple(machine.opcode_bytes(index)[:OPERANDS])
        )
        for index in range(machine.opcode_count())
    }
