"""The records that the extension takes, one for each call, and the constants that it shares.

glm4q/native/records.h declares the same records, and constants.h the same constants; tests compare
them. Every field is 8 bytes, so a record has no padding.
"""

from ctypes import Structure, c_double, c_int64, c_void_p
from zlib import crc32

import torch

from calculator.memory.workspace import FEW_TOKENS, KV_GROUP, BufferName, LentUse
from glm4q.kernels.attention.attention_spec import LARGEST_HEAD
from glm4q.memory.kv import int4, int8
from glm4q.weights.packing import BOOK_SIZE, WORD_BITS

ADDRESS, INTEGER, NUMBER = c_void_p, c_int64, c_double

DTYPES = {torch.bfloat16: 0, torch.float32: 1}
KV_FLOAT32, KV_BFLOAT16, KV_INT8, KV_INT4 = range(4)
SEGMENT = 32
"""Inputs that share a scale of 8-bit activations, at most. With 128 the demo at INT8 lost 0.55 %
of perplexity to their rounding, with 32 it loses 0.33 % (the built-in held-out text)."""
LARGEST_MULTIPLE = 8192
"""Scales of 8-bit activations are whole multiples of a chunk's unit, this one at most."""
LARGEST_INT16 = 32512
"""The largest 16-bit code of an activation: with a weight's largest code, 255, it fits 16 bits."""
CHUNK = 128
"""Inputs that are multiplied before a weight's scale, at most; they share a scale of 16-bit
activations."""
LARGEST_DENSE_NUMBERS = 1 << 18
"""Activations that `matmul_dense` keeps as floats on the stack at once. It takes as many rows as
fit, then the next ones; one row must fit."""
LARGEST_BLOCK = 128
"""Inputs that `compensate` and `descend` round in one call, at most."""

CONSTANTS = {
    "BFLOAT16": DTYPES[torch.bfloat16],
    "FLOAT32": DTYPES[torch.float32],
    "KV_FLOAT32": KV_FLOAT32,
    "KV_BFLOAT16": KV_BFLOAT16,
    "KV_INT8": KV_INT8,
    "KV_INT4": KV_INT4,
    "KV_GROUP": KV_GROUP,
    "LARGEST_INT8": int8.LARGEST_CODE,
    "LARGEST_INT4": int4.LARGEST_CODE,
    "SMALLEST_SCALE_EXPONENT": int8.SMALLEST_SCALE_EXPONENT,
    "LARGEST_HEAD": LARGEST_HEAD,
    "FEW_TOKENS": FEW_TOKENS,
    "SEGMENT": SEGMENT,
    "LARGEST_MULTIPLE": LARGEST_MULTIPLE,
    "LARGEST_INT16": LARGEST_INT16,
    "CHUNK": CHUNK,
    "WORD_BITS": WORD_BITS,
    "BOOK_SIZE": BOOK_SIZE,
    "LARGEST_DENSE_NUMBERS": LARGEST_DENSE_NUMBERS,
    "LARGEST_BLOCK": LARGEST_BLOCK,
}
"""By the names of constants.h."""

STEP_BUFFERS: tuple[BufferName | LentUse, ...] = (
    "hidden_states",
    "normed",
    "q",
    "k",
    "v",
    "queries",
    "mixed",
    "partial_sums",
    "attended",
    "delta",
    "gate_up",
    "gated",
    "scratch",
    "rotation",
    "frequencies",
)
"""The buffers of a step that `run_layers` uses, in the order of StepRecord."""


def _fields(names: str, kind: type) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class LinearRecord(Structure):
    """A quantized weight of a linear layer."""

    _fields_ = [
        *_fields("qweight scales qzeros book bias", ADDRESS),
        *_fields("outputs inputs bits group wide_scales activation_bits", INTEGER),
    ]


class MatmulRecord(Structure):
    """One matmul by a quantized weight."""

    _fields_ = [
        ("weight", LinearRecord),
        ("x", ADDRESS),
        *_fields("rows dtype", INTEGER),
        ("out", ADDRESS),
        ("out_dtype", INTEGER),
        ("scratch", ADDRESS),
        ("scratch_bytes", INTEGER),
    ]


class DenseMatmulRecord(Structure):
    """One matmul by a bfloat16 weight."""

    _fields_ = [
        ("weight", ADDRESS),
        *_fields("outputs inputs", INTEGER),
        ("x", ADDRESS),
        *_fields("rows dtype", INTEGER),
        ("out", ADDRESS),
        ("out_dtype", INTEGER),
    ]


class NormRecord(Structure):
    """One RMSNorm."""

    _fields_ = [
        *_fields("x weight out", ADDRESS),
        *_fields("rows size dtype", INTEGER),
        ("eps", NUMBER),
    ]


class CacheRecord(Structure):
    """The cached keys or values of one layer."""

    _fields_ = [("format", INTEGER), *_fields("codes scales centers", ADDRESS)]


class AttentionRecord(Structure):
    """Attention of one layer."""

    _fields_ = [
        *_fields("batch tokens kv_heads shared head_size room length", INTEGER),
        *_fields("keys values", CacheRecord),
        ("frequencies", ADDRESS),
        ("pairs", INTEGER),
        ("attention_factor", NUMBER),
        *_fields("queries mixed partial_sums", ADDRESS),
        ("partial_sums_bytes", INTEGER),
    ]


class LayerRecord(Structure):
    """One decoder layer: its weights, and its part of the cache."""

    _fields_ = [
        *_fields("q k v o gate_up down", LinearRecord),
        *_fields("input_norm feed_forward_norm attended_norm fed_norm", ADDRESS),
        *_fields("keys values", CacheRecord),
    ]


class StepRecord(Structure):
    """A step through all layers: sequences that have one new token each, then a batch of others."""

    _fields_ = [
        *_fields("batch tokens decoding decoding_sums_bytes", INTEGER),
        *_fields("hidden inner heads kv_heads head_size pairs room", INTEGER),
        *_fields("cache_rows dtype partial_sums_bytes scratch_bytes", INTEGER),
        *_fields("eps theta attention_factor", NUMBER),
        *_fields(" ".join(STEP_BUFFERS), ADDRESS),
    ]


class GramRecord(Structure):
    """Sums over tokens of products of two inputs."""

    _fields_ = [
        ("left", ADDRESS),
        ("left_columns", INTEGER),
        ("right", ADDRESS),
        *_fields("right_columns tokens", INTEGER),
        ("out", ADDRESS),
        ("stride", INTEGER),
        ("scratch", ADDRESS),
        ("scratch_bytes", INTEGER),
    ]


class RoundingRecord(Structure):
    """Rounding to nearest of the rows of a weight."""

    _fields_ = [
        ("weight", ADDRESS),
        ("dtype", INTEGER),
        ("importance", ADDRESS),
        *_fields("outputs inputs groups bits symmetric", INTEGER),
        ("clips", ADDRESS),
        ("clip_count", INTEGER),
        *_fields("words scales zero_points", ADDRESS),
        ("stride", INTEGER),
    ]


class BlockRecord(Structure):
    """Some inputs of a weight."""

    _fields_ = _fields("outputs inputs groups bits first last", INTEGER)


class CompensationRecord(Structure):
    """One block of GPTQ."""

    _fields_ = [
        ("block", BlockRecord),
        *_fields("rows left root group scales zero_points codes errors", ADDRESS),
    ]


class DescentRecord(Structure):
    """One block of a sweep of coordinate descent."""

    _fields_ = [
        ("block", BlockRecord),
        *_fields("centered scales zero_points slope hessian", ADDRESS),
        ("rescales", INTEGER),
        ("change", ADDRESS),
    ]


class SubtractionRecord(Structure):
    """What a sweep of coordinate descent without new scales does to the slope."""

    _fields_ = [
        *_fields("change matrix out", ADDRESS),
        *_fields("rows terms columns first last", INTEGER),
    ]


RECORDS = (
    LinearRecord,
    MatmulRecord,
    DenseMatmulRecord,
    NormRecord,
    CacheRecord,
    AttentionRecord,
    LayerRecord,
    StepRecord,
    GramRecord,
    RoundingRecord,
    BlockRecord,
    CompensationRecord,
    DescentRecord,
    SubtractionRecord,
)


def checksum() -> int:
    """A number that changes with any record or constant: the header has it as RECORDS_CHECKSUM."""
    lines = [f"{name} {value}" for name, value in CONSTANTS.items()]
    for record in RECORDS:
        lines += [f"{record.__name__} {field[0]} {field[1].__name__}" for field in record._fields_]
    return crc32("\n".join(lines).encode())
