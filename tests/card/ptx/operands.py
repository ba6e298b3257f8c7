"""Operands of PTX as rows of 32 numbers, and the names under which the machine knows an opcode."""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.card.ptx.records import FLAGS, LANES, Line, opcodes

SPECIAL = (
    "%tid.x", "%ctaid.x", "%ctaid.y", "%ctaid.z",
    "%nctaid.x", "%nctaid.y", "%nctaid.z", "%laneid",
)  # fmt: skip
OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")
ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+))?\s*\]$")
SINK = "_"
ELEMENT = re.compile(r"([bsuf])(8|16|32|64)$")
VECTOR = re.compile(r"\.v([248])\.")
MATRICES = re.compile(r"(ld|st)matrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared\.b16$")
COPY = re.compile(r"cp\.async\.c[ag]\.shared\.global$")


@dataclass
class Rows:
    """Where each register and constant lies in a warp's register file."""

    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Offset and bytes of a number."""
    image: bytearray = field(default_factory=bytearray)
    """What the file holds at first: a pattern in registers, and the constants."""

    def declare(self, name: str, count: int, size: int) -> None:
        for number in range(count):
            self._add(f"{name}{number}", b"\xcd" * size if size > 1 else b"\0")

    def size(self, name: str) -> int:
        """Bytes of a register's numbers."""
        return self.places[name][1]

    def of(self, word: str, size: int) -> int:
        """The row of a register or a constant of so many bytes; 0 takes the register's own."""
        if word in self.places:
            offset, known = self.places[word]
            if size not in (0, known):
                raise ValueError(f"{word} has {known} bytes, not {size}")
            return offset
        if word == SINK or word in SPECIAL:
            return self._add(f"{word} {size}" if word == SINK else word, b"\0" * (size or 4))
        if word.startswith("%"):
            raise ValueError(f"unknown register {word}")
        name = f"constant {word} {size}"
        return self.places[name][0] if name in self.places else self._add(name, _bits(word, size))

    def _add(self, name: str, number: bytes) -> int:
        offset = -(-len(self.image) // 8) * 8
        self.image.extend(b"\0" * (offset - len(self.image)) + number * LANES)
        self.places[name] = offset, len(number)
        return offset


def _bits(word: str, size: int) -> bytes:
    """A constant's bytes. Shared memory starts at 0."""
    if word == "global_smem":
        return bytes(size)
    if match := re.match(r"0([fd])([0-9a-fA-F]+)$", word):
        return struct.pack("<I" if match[1] == "f" else "<Q", int(match[2], 16))
    number = int(word.rstrip("U"), 0)
    if size == 1:
        return bytes([number != 0])
    return (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def split(text: str) -> list[str]:
    """Operands between commas, vectors and addresses whole."""
    return [word.strip() for word in OPERAND.findall(text)]


def fill(
    line: Line, name: str, words: list[str], rows: Rows, parameter: Callable[[str], int]
) -> None:
    """Write one instruction into its record. Raises KeyError for an opcode that is not known."""
    if name.startswith("ld.param."):
        _parameter(line, name, words, rows, parameter)
    elif match := re.match(r"(ld|st)\.(global|shared)\.", name):
        _memory(line, match[0].rstrip("."), name, words, rows)
    elif match := MATRICES.match(name):
        _matrices(line, match, words, rows)
    elif COPY.match(name):
        _copy(line, words, rows)
    elif name.startswith("cp.async."):
        _known(line, name)
        line.target = int(words[0], 0) if words else 0
    elif name in ("bra", "bra.uni", "ret", "exit", "bar.sync"):
        _known(line, name.removesuffix(".uni"))
        if name == "bar.sync" and words != ["0"]:
            raise ValueError("only barrier 0 of a whole block is known")
    else:
        _plain(line, name, [_place(word, parameter) for word in words], rows)


def _known(line: Line, name: str) -> tuple[int, ...]:
    opcode = opcodes()[name]
    line.opcode = opcode.index
    return opcode.bytes


def _vector(word: str) -> list[str]:
    return [each.strip() for each in word.strip("{} ").split(",")]


def _address(line: Line, word: str, rows: Rows, size: int) -> tuple[int, int]:
    match = ADDRESS.match(word)
    if not match:
        raise ValueError(f"address {word}")
    return rows.of(match[1], size), int(match[2] or "0", 0)


def _parameter(
    line: Line, name: str, words: list[str], rows: Rows, parameter: Callable[[str], int]
) -> None:
    _known(line, "ld.param")
    kind = ELEMENT.search(name)
    if not kind or name != f"ld.param.{kind[0]}":
        raise KeyError(name)
    line.size = int(kind[2]) // 8
    line.flags |= FLAGS["SIGNED"] if kind[1] == "s" else 0
    line.operand[0], line.width = rows.of(words[0], 0), rows.size(words[0])
    match = ADDRESS.match(words[1])
    if not match:
        raise ValueError(f"address {words[1]}")
    line.operand[1], line.offset = rows.of(_place(match[1], parameter), 8), int(match[2] or "0", 0)


def _place(word: str, parameter: Callable[[str], int]) -> str:
    """A parameter's name is the constant at which it lies."""
    return str(parameter(word)) if "_param_" in word else word


def _memory(line: Line, opcode: str, name: str, words: list[str], rows: Rows) -> None:
    """ld and st; the name says no more than space, vector and type."""
    _known(line, opcode)
    kind = ELEMENT.search(name)
    vector = VECTOR.search(name)
    expected = f"{opcode}.{f'v{vector[1]}.' if vector else ''}{kind[0] if kind else ''}"
    if not kind or name != expected:
        raise KeyError(name)
    load, wide = opcode.startswith("ld"), 8 if opcode.endswith("global") else 4
    address, moved = (words[1], words[0]) if load else (words[0], words[1])
    registers = _vector(moved)
    line.size, line.count = int(kind[2]) // 8, len(registers)
    if line.count != int(vector[1] if vector else 1):
        raise ValueError("as many registers as the vector has")
    known = [rows.size(each) for each in registers if each in rows.places]
    line.width = max(known, default=line.size)
    if line.width < line.size:
        raise ValueError("a register narrower than what it takes")
    line.flags |= FLAGS["SIGNED"] if kind[1] == "s" else 0
    places = [rows.of(each, line.width) for each in registers]
    base, line.offset = _address(line, address, rows, wide)
    for place, row in enumerate([*places, base] if load else [base, *places]):
        line.operand[place] = row


def _matrices(line: Line, match: re.Match[str], words: list[str], rows: Rows) -> None:
    load = match[1] == "ld"
    _known(line, f"{match[1]}matrix")
    line.count, line.flags = int(match[2]), FLAGS["TRANSPOSED"] if match[3] else 0
    registers = _vector(words[0] if load else words[1])
    if len(registers) != line.count:
        raise ValueError("a register for each matrix")
    places = [rows.of(each, 4) for each in registers]
    base, line.offset = _address(line, words[1] if load else words[0], rows, 4)
    for place, row in enumerate([*places, base] if load else [base, *places]):
        line.operand[place] = row


def _copy(line: Line, words: list[str], rows: Rows) -> None:
    _known(line, "cp.async")
    line.operand[0], line.target = _address(line, words[0], rows, 4)
    line.operand[1], line.offset = _address(line, words[1], rows, 8)
    line.size = int(words[2], 0)
    line.operand[2] = rows.of(words[3], 4) if len(words) > 3 else -1


def _plain(line: Line, name: str, words: list[str], rows: Rows) -> None:
    """Registers and constants, each as wide as the opcode says."""
    if name in ALIASES:
        name = ALIASES[name]
    if name.startswith("mov.") and any(word.startswith("{") for word in words):
        side = "unpack" if words[0].startswith("{") else "pack"
        parts = _vector(words[0] if side == "unpack" else words[1])
        name += f".{side}{len(parts)}"
        words = [*parts, words[1]] if side == "unpack" else [words[0], *parts]
    words = [each for word in words for each in (_vector(word) if "{" in word else [word])]
    if f"{name}.{len(words) - 1}" in opcodes():  # from Blackwell on max and min may take three
        name = f"{name}.{len(words) - 1}"
    elif name.startswith("cvt.") and f"{name}.low" in opcodes():
        name += ".low" if rows.size(words[1]) > opcodes()[name].bytes[1] else ""
    sizes = _known(line, name)
    if sum(size >= 0 for size in sizes) != len(words):
        raise ValueError(f"{len(words)} operands")
    for place, (word, size) in enumerate(zip(words, sizes, strict=False)):
        line.operand[place] = rows.of(word, size)
    if 0 in sizes:  # an 8-bit number in wider registers
        line.width, line.size = rows.size(words[0]), rows.size(words[1])


ALIASES = {
    "mov.u16": "mov.b16", "mov.u32": "mov.b32", "mov.s32": "mov.b32", "mov.f32": "mov.b32",
    "mov.u64": "mov.b64", "mov.f64": "mov.b64", "selp.u32": "selp.b32", "selp.s32": "selp.b32",
    "setp.eq.u32": "setp.eq.b32", "setp.ne.u32": "setp.ne.b32",
    "setp.eq.u64": "setp.eq.b64", "setp.ne.u64": "setp.ne.b64",
    "add.rn.f16x2": "add.f16x2", "sub.rn.f16x2": "sub.f16x2", "mul.rn.f16x2": "mul.f16x2",
    "add.rn.f32": "add.f32", "sub.rn.f32": "sub.f32", "mul.rn.f32": "mul.f32",
    "add.rn.f32x2": "add.f32x2", "mul.rn.f32x2": "mul.f32x2", "sub.rn.f32x2": "sub.f32x2",
}  # fmt: skip
"""Names for the same bits."""
