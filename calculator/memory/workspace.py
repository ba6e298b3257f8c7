"""The workspace: every buffer of a forward pass, its shape, and the moments at which it is alive.

The runtime divides its one block of memory as `calculator.memory.arena` places these buffers, so
the plan counts what the runtime allocates. Each step of a forward pass, a prefill chunk or one
decoded token, fills them again.
"""

from collections.abc import Mapping
from math import prod
from typing import Literal, cast

from calculator.dataclass import dataclass
from calculator.model.config import ModelConfig

PREFILL_CHUNK = 512
"""Prompt tokens in one forward pass, so that the workspace does not grow with the prompt."""

PREFILL_TILE = 256
"""Cached tokens attended to at once, so that scores do not grow with the context either."""
DECODE_TILE = 2048
"""Cached tokens attended to at once while decoding, whose scores are few."""

FEW_TOKENS = 8
"""New tokens of a step, the newest of an answer and its draft, at most. The CPU's kernels give each
of so many the bits that it has alone; more would be multiplied in another order."""

KV_GROUP = 64
"""Numbers of a cached vector that share a scale, where the cache is INT4."""

MOMENTS = (
    "input",
    "attention norm",
    "projections",
    "append",
    "attention",
    "attention output",
    "feed-forward norm",
    "feed-forward",
    "feed-forward output",
    "head",
)
LINEARS = ("projections", "attention output", "feed-forward", "feed-forward output", "head")
"""Moments at which a weight is multiplied by."""
NORMS = ("attention norm", "attention output", "feed-forward norm", "feed-forward output", "head")
"""GLM-4-0414 norms what attention and feed-forward return as well."""

Dtype = Literal["activation", "float32", "float64", "int64", "uint8", "bool"]
BYTES: dict[Dtype, int] = {"float32": 4, "float64": 8, "int64": 8, "uint8": 1, "bool": 1}


BufferName = Literal[
    "normed",
    "wide",
    "root_mean_square",
    "head_output",
    "logits",
    "scratch",
    "token_ids",
    "hidden_states",
    "angles",
    "frequencies",
    "positions",
    "cached",
    "cache_rows",
    "rotation",
    "tile_angles",
    "tile_positions",
    "tile_rotation",
    "future",
    "hadamard",
    "q",
    "k",
    "v",
    "half_rotated",
    "fresh",
    "fresh_hadamard",
    "fresh_codes",
    "extremes",
    "queries",
    "keys",
    "values",
    "tile_codes",
    "tile_scales",
    "tile_centers",
    "start_center",
    "start_position",
    "start_angles",
    "start_rotation",
    "scores",
    "softmax",
    "mixed",
    "mixed_hadamard",
    "attended",
    "delta",
    "gate_up",
    "gated",
]
"""The buffers of a step. Python and C++ use the same names."""

LentUse = Literal[
    "partial_sums",
    "partial_softmax",
    "unsplit_sums",
    "transformed_queries",
    "transformed_queries_on_gpu",
]
"""Second purposes of buffers. `Step` takes these names as well as those of buffers."""


@dataclass(frozen=True)
class Lent:
    """A buffer that serves a second purpose while its own numbers are not needed."""

    buffer: BufferName
    moments: tuple[str, ...]
    """When it serves so. The buffer must be alive then, or another one may share its memory."""
    like: BufferName | None = None
    """The buffer whose dtype and size the second purpose takes. None where the kernel divides its
    work so that the partial results fit into what there is."""


LENT: Mapping[str, Lent] = {
    # Kernels that read the cache in place never unpack a tile of keys, nor store a tile of scores.
    # They leave there what each range of the cache adds up to, until the ranges are merged.
    "partial_sums": Lent("keys", ("attention",)),
    "partial_softmax": Lent("scores", ("attention",)),
    # A prefill chunk has as many rows as a tile has tokens, so that "keys" may be too small for
    # one range's sums: a GPU then uses a single range.
    "unsplit_sums": Lent("mixed_hadamard", ("attention",), like="mixed"),
    # The queries for keys that are cached under the Hadamard transform. On a GPU "mixed_hadamard"
    # may hold sums, and the kernel that appends tokens already leaves the queries in "mixed".
    "transformed_queries": Lent("mixed_hadamard", ("attention",), like="queries"),
    "transformed_queries_on_gpu": Lent("mixed", ("append", "attention"), like="queries"),
}


def buffer_for(name: BufferName | LentUse) -> BufferName:
    """The buffer of that name, or the one that serves that purpose."""
    lent = LENT.get(name)
    return cast(BufferName, name) if lent is None else lent.buffer


@dataclass(frozen=True)
class StepShape:
    """The number of sequences and tokens that go through the model at once."""

    batch: int
    tokens: int
    """New tokens of each sequence: 1 when decoding, and those that were drafted."""
    tile: int
    """Cached tokens that are attended to at once."""
    logits: int = 1
    """The last tokens of each sequence, whose logits are made."""


@dataclass(frozen=True)
class StepBuffer:
    """A tensor of the workspace."""

    name: BufferName
    dtype: Dtype
    shape: tuple[int, ...]
    alive: tuple[str, ...]
    """The moments at which its numbers are needed; at others its place is free for another."""

    def bytes(self, activation_bytes: int) -> int:
        return prod(self.shape) * BYTES.get(self.dtype, activation_bytes)


def step_buffers(
    config: ModelConfig, shape: StepShape, *, scratch_bytes: int = 0, head: bool = True
) -> list[StepBuffer]:
    """All buffers of a step.

    scratch_bytes: what the kernels of quantized weights need while they multiply. head: whether the
    step ends with logits; where layers are on two devices, it does on one.
    """
    each = shape.batch, shape.tokens
    logits = (shape.batch * shape.logits, config.vocab_size) if head else (0,)
    return [
        *_throughout(config, shape),
        StepBuffer("normed", "activation", (*each, config.hidden_size), (*NORMS, *LINEARS[:-1])),
        StepBuffer("wide", "float32", (*each, config.hidden_size), NORMS),
        StepBuffer("root_mean_square", "float32", (*each, 1), NORMS),
        *_projections(config, shape),
        *_attention(config, shape),
        *_feed_forward(config, shape),
        StepBuffer("head_output", "activation", logits, ("head",)),
        StepBuffer("logits", "float32", logits, ("head",)),
        StepBuffer("scratch", "uint8", (scratch_bytes,), LINEARS),
    ]


def _throughout(config: ModelConfig, shape: StepShape) -> list[StepBuffer]:
    pairs = config.rotary_dim // 2
    layers = MOMENTS[:-1]
    return [
        StepBuffer("token_ids", "int64", (shape.batch, shape.tokens), ("input",)),
        StepBuffer(
            "hidden_states", "activation", (shape.batch, shape.tokens, config.hidden_size), MOMENTS
        ),
        StepBuffer("angles", "float64", (2, shape.tokens, pairs), ("input",)),
        StepBuffer("frequencies", "float64", (pairs,), layers),
        StepBuffer("positions", "float64", (shape.tokens,), ("input",)),
        StepBuffer("cached", "int64", (shape.batch,), layers),
        StepBuffer("cache_rows", "int64", (shape.batch,), layers),
        StepBuffer("rotation", "float32", (2, shape.batch, shape.tokens, pairs), layers),
        StepBuffer("tile_angles", "float64", (2, shape.tile, pairs), ("input",)),
        StepBuffer("tile_positions", "float64", (shape.tile,), ("input",)),
        StepBuffer("tile_rotation", "float32", (2, shape.tile, pairs), layers),
        StepBuffer("future", "bool", (shape.tokens, shape.tokens), layers),
        StepBuffer("hadamard", "float32", (KV_GROUP, KV_GROUP), layers),
    ]


def _projections(config: ModelConfig, shape: StepShape) -> list[StepBuffer]:
    """Queries, keys and values, and what becomes of them before they are cached."""
    batch, tokens, size = shape.batch, shape.tokens, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    groups, shared = max(size // KV_GROUP, 1), heads // kv_heads
    half = batch, kv_heads, shared, tokens, config.rotary_dim // 2
    kept = "projections", "append"
    return [
        StepBuffer("q", "activation", (batch, tokens, heads, size), kept),
        StepBuffer("k", "activation", (batch, tokens, kv_heads, size), kept),
        StepBuffer("v", "activation", (batch, tokens, kv_heads, size), kept),
        StepBuffer("half_rotated", "float32", half, ("append",)),
        StepBuffer("fresh", "float32", (batch, kv_heads, tokens, size), ("append",)),
        StepBuffer("fresh_hadamard", "float32", (batch, kv_heads, tokens, size), ("append",)),
        StepBuffer("fresh_codes", "uint8", (batch, kv_heads, tokens, size), ("append",)),
        StepBuffer("extremes", "float32", (3, batch, kv_heads, tokens, groups), ("append",)),
    ]


def _attention(config: ModelConfig, shape: StepShape) -> list[StepBuffer]:
    """Queries that share a key are rows of one matrix; the cache is read tile by tile."""
    size, kv_heads = config.head_dim, config.num_key_value_heads
    rows = config.num_attention_heads // kv_heads * shape.tokens
    each, tile = (shape.batch, kv_heads), shape.tile
    groups = max(size // KV_GROUP, 1)
    pairs = config.rotary_dim // 2
    now = ("attention",)
    return [
        StepBuffer("queries", "float32", (*each, rows, size), ("append", "attention")),
        StepBuffer("keys", "float32", (*each, tile, size), now),
        StepBuffer("values", "float32", (*each, tile, size), now),
        StepBuffer("tile_codes", "uint8", (*each, tile, size), now),
        StepBuffer("tile_scales", "float32", (*each, tile, groups), now),
        StepBuffer("tile_centers", "float32", (*each, tile, size), now),
        StepBuffer("start_center", "float32", (*each, 1, size), now),
        StepBuffer("start_position", "float64", (1,), now),
        StepBuffer("start_angles", "float64", (2, 1, pairs), now),
        StepBuffer("start_rotation", "float32", (2, 1, pairs), now),
        StepBuffer("scores", "float32", (*each, rows, tile), now),
        StepBuffer("softmax", "float32", (4, *each, rows, 1), now),
        StepBuffer("mixed", "float32", (*each, rows, size), ("append", "attention")),
        StepBuffer("mixed_hadamard", "float32", (*each, rows, size), now),
        StepBuffer(
            "attended",
            "activation",
            (shape.batch, shape.tokens, config.num_attention_heads * size),
            ("attention", "attention output"),
        ),
    ]


def _feed_forward(config: ModelConfig, shape: StepShape) -> list[StepBuffer]:
    each, inner = (shape.batch, shape.tokens), config.intermediate_size
    last = "feed-forward output"
    return [
        StepBuffer("delta", "activation", (*each, config.hidden_size), ("attention output", last)),
        StepBuffer("gate_up", "activation", (*each, 2 * inner), ("feed-forward",)),
        StepBuffer("gated", "activation", (*each, inner), ("feed-forward", last)),
    ]
