"""PTX text as records that the machine runs. What is not understood is an error, never skipped."""

import ctypes
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from tests.card.ptx import operands
from tests.card.ptx.records import FLAGS, Line, opcodes

DIRECTIVES = ".loc", ".pragma", ".reg", ".file", ".section"
STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)$", re.DOTALL)
LABEL = re.compile(r"(\$\w+):")
PARAMETER = re.compile(r"\.param\s+\.(\w+)[^,)]*?(\w+_param_\d+)")
BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}
SPECIAL = "%tid.x", "%ctaid.x", "%ctaid.y", "%ctaid.z", "%nctaid.x", "%nctaid.y", "%nctaid.z"


class PtxError(Exception):
    """Text that this machine does not know."""


@dataclass
class Program:
    """One kernel: its instructions, its registers and its parameters."""

    name: str
    threads: int
    parameters: list[tuple[str, int]]
    """Name and bytes of each, in order."""
    lines: list[Line] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    """What each record was written from."""
    places: list[str] = field(default_factory=list)
    """The line of Triton code that each came from."""
    labels: dict[str, int] = field(default_factory=dict)
    rows: operands.Rows = field(default_factory=operands.Rows)

    @property
    def loops(self) -> list[tuple[int, int]]:
        """First and last record of everything that a later branch goes back over."""
        branch = opcodes()["bra"].index
        return [
            (line.target, place)
            for place, line in enumerate(self.lines)
            if line.opcode == branch and line.target <= place
        ]

    @cached_property
    def image(self) -> tuple[ctypes.Array[Line], bytes]:
        """Records and registers as the machine takes them."""
        return (Line * len(self.lines))(*self.lines), bytes(self.rows.image)

    def parameter_offset(self, name: str) -> int:
        """Where a parameter lies in the memory that a launch hands over."""
        offset = 0
        for known, size in self.parameters:
            offset = -(-offset // size) * size
            if known == name:
                return offset
            offset += size
        raise PtxError(f"no parameter {name}")


@lru_cache(1024)
def parse(text: str) -> Program:
    """The one kernel of a PTX file."""
    text = re.sub(r"//[^\n]*", lambda match: _place(match[0]), text)
    head, _, rest = text.partition("\n{\n")
    body, end, _ = rest.partition("\n}\n")
    entry, threads = re.search(r"\.entry\s+(\w+)", head), re.search(r"\.reqntid\s+(\d+)", head)
    if not (end and entry and threads):
        raise PtxError("not one kernel with .reqntid")
    parameters = [(name, BYTES[re.sub(r"\D", "", kind)]) for kind, name in PARAMETER.findall(head)]
    program = Program(entry[1], int(threads[1]), parameters)
    _read_body(program, body)
    for line, words in zip(program.lines, program.text, strict=True):
        if line.opcode == opcodes()["bra"].index:
            line.target = program.labels[words.split()[-1]]
            if line.target < len(program.lines):
                program.lines[line.target].flags |= FLAGS["LABELLED"]
    return program


def _place(comment: str) -> str:
    """Keep only comments that say where a .loc points."""
    match = re.search(r"(\w+\.py:\d+):\d+", comment)
    return f"@{match[1]}" if match else ""


def _read_body(program: Program, body: str) -> None:
    place, used = "", 0xFFFFFFFF
    for raw in re.split(r"[;\n]", body):
        words = raw.strip()
        if not words:
            continue
        if label := LABEL.match(words):
            # Most labels are of debug information: only what a branch goes to is marked.
            program.labels[label[1]] = len(program.lines)
        elif words.startswith("."):
            place, used = _directive(program, words, place, used)
        else:
            line = _instruction(program, words, used)
            program.lines.append(line)
            program.text.append(words)
            program.places.append(place)
            used = 0xFFFFFFFF


def _directive(program: Program, words: str, place: str, used: int) -> tuple[str, int]:
    if not words.startswith(DIRECTIVES):
        raise PtxError(f"unknown directive: {words}")
    if words.startswith(".reg"):
        match = re.match(r"\.reg\s+\.(\w+)\s+(%\w+)<(\d+)>", words)
        if not match:
            raise PtxError(f"unknown registers: {words}")
        size = 1 if match[1] == "pred" else BYTES[re.sub(r"\D", "", match[1])]
        program.rows.declare(match[2], int(match[3]), size)
    elif words.startswith(".loc"):
        place = words.partition("@")[2] or place
    elif mask := re.search(r"used_bytes_mask (0x[0-9a-f]+)", words):
        used = int(mask[1], 16)
    return place, used


def _instruction(program: Program, words: str, used: int) -> Line:
    match = STATEMENT.match(words)
    if not match:
        raise PtxError(f"not understood: {words}")
    negated, predicate, name, rest = match.groups()
    line = Line(used_bytes=used, predicate=-1)
    if predicate:
        line.predicate, line.negated = program.rows.of(predicate, 1), negated == "!"
    try:
        operands.fill(line, name, operands.split(rest), program.rows, program.parameter_offset)
    except (KeyError, ValueError) as error:
        raise PtxError(f"not understood: {words} ({error})") from None
    return line
