"""The functions of glm4q/native/module.cpp and module_quantize.cpp.

Records are those of glm4q/kernels/cpu/records.py. A record of another size, an instruction set that
this machine lacks and a number below 1 raise ValueError; a wrong number of arguments raises
TypeError.
"""

from array import array
from ctypes import Array

from glm4q.kernels.cpu.records import (
    AttentionRecord,
    CompensationRecord,
    DenseMatmulRecord,
    DescentRecord,
    GramRecord,
    LayerRecord,
    MatmulRecord,
    NormRecord,
    RoundingRecord,
    StepRecord,
    SubtractionRecord,
)

RECORDS_CHECKSUM: int

def find_instruction_set(name: str, /) -> int: ...
def instruction_set_name(number: int, /) -> str: ...
def matmul(instruction_set: int, record: MatmulRecord, threads: int, /) -> None: ...
def matmul_dense(instruction_set: int, record: DenseMatmulRecord, threads: int, /) -> None: ...
def attend(instruction_set: int, record: AttentionRecord, threads: int, /) -> None: ...
def norm(instruction_set: int, record: NormRecord, threads: int, /) -> None: ...
def run_layers(
    instruction_set: int,
    layers: Array[LayerRecord],
    step: StepRecord,
    lengths: array[int],
    places: array[int],
    threads: int,
    /,
) -> None: ...
def gram_scratch(
    instruction_set: int, left_columns: int, right_columns: int, tokens: int, /
) -> int: ...
def gram(instruction_set: int, record: GramRecord, threads: int, /) -> None: ...
def round_rows(instruction_set: int, record: RoundingRecord, threads: int, /) -> None: ...
def compensate(instruction_set: int, record: CompensationRecord, threads: int, /) -> None: ...
def descend(instruction_set: int, record: DescentRecord, threads: int, /) -> None: ...
def subtract(instruction_set: int, record: SubtractionRecord, threads: int, /) -> None: ...
