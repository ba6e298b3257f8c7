"""The launches of a layer's attention: append tokens, attend to ranges of the cache, merge."""

from dataclasses import dataclass

import triton
from torch import Tensor

from calculator.memory.workspace import BufferName, LentUse
from glm4q.kernels.cuda import Lowering
from glm4q.kernels.gpu.attention.append import append
from glm4q.kernels.gpu.attention.attend import attend, merge
from glm4q.kernels.gpu.launch import Argument, Constant, Launch
from glm4q.memory.kv.dense import Dense
from glm4q.memory.kv.int4 import Int4
from glm4q.memory.kv.int8 import Int8
from glm4q.memory.kv.spec import KVStore, room_of
from glm4q.memory.workspace import Step

KINDS: dict[type, str] = {Dense: "dense", Int8: "int8", Int4: "int4"}
BLOCKS = 256
"""Blocks to start if the context can be split into as many ranges: two for each multiprocessor of
an RTX 4090."""
MOST_ROWS = 64
"""The most rows of a block: the sums and scores of 128 would not fit into registers."""
BLOCK_S = 64
"""Cached tokens of a tile: more would not fit into registers."""
SHORT_BLOCK_S = 32
"""Cached tokens of a tile where many rows meet an INT4 cache, and of most tiles in Gluon, where
larger ones were slower on an H200."""
SMALLEST_TILE = 16
"""The smallest tile that a tensor core multiplies."""


@dataclass(frozen=True)
class AttentionLaunches:
    """The launches of one layer for the newest tokens of a step.

    The context is split into ranges. Their partial results are kept in buffers that are lent for
    this: see LENT in calculator/memory/workspace.py.
    """

    step: Step
    keys: KVStore
    values: KVStore
    """Those of all sequences: "cache_rows" says which of them the step has."""
    layer: int
    lowering: Lowering = Lowering.DOT
    ahead: int = 0
    """Tokens of a draft that come before this one and run with it."""
    sines: int | None = None
    """Numbers from a token's cosines to its sines, where the tables have more than the step's."""

    def append(self) -> list[Launch]:
        """Append the tokens, and leave their queries for `attend`.

        Several tokens that come first have set the centres of keys before, where there are any.
        """
        return [self._append()]

    def attend(self) -> list[Launch]:
        """Attend from tokens that were appended: to "attended"."""
        return [self._attend(), self._merge()]

    def append_and_attend(self) -> list[Launch]:
        """Append the tokens and attend from them: from "q", "k" and "v" to "attended"."""
        return [*self.append(), *self.attend()]

    @property
    def splits(self) -> int:
        """The number of ranges that the context is split into, whatever its length."""
        tile = self.step["partial_sums"].shape[2]
        most = tile // max(self._rows, SMALLEST_TILE)  # so that their sums fit into a tile
        return max(min(BLOCKS // (self._heads * self._blocks), most), 1)

    @property
    def _heads(self) -> int:
        """The number of key heads in all sequences of the step."""
        return self.step["queries"].shape[:2].numel()

    @property
    def _heads_of_one(self) -> int:
        """The number of key heads of one sequence."""
        return self.step["queries"].shape[1]

    @property
    def _rows(self) -> int:
        """The number of queries that share a key head."""
        return self.step["queries"].shape[2]

    @property
    def _block_rows(self) -> int:
        return min(max(triton.next_power_of_2(self._rows), SMALLEST_TILE), MOST_ROWS)

    @property
    def _block_tokens(self) -> int:
        """Cached tokens of a tile."""
        many = self._block_rows > SMALLEST_TILE
        return SHORT_BLOCK_S if many and self.values.hadamard else BLOCK_S

    @property
    def _warps(self) -> int:
        """Warps of a block that attends.

        Each warp rotates the centre of INT4 keys by itself, so few rows are better with few warps.
        """
        return 4 if self.keys.hadamard and self._block_rows <= SMALLEST_TILE else 8

    @property
    def _blocks(self) -> int:
        return triton.cdiv(self._rows, self._block_rows)

    @property
    def _pairs(self) -> int:
        return self.step["rotation"].shape[-1]

    @property
    def _size(self) -> int:
        return self.step["queries"].shape[-1]

    @property
    def _room(self) -> int:
        return room_of(self.keys)

    @property
    def _results(self) -> dict[str, Tensor]:
        """The buffers of the ranges' partial results."""
        sums: LentUse = "partial_sums" if self.splits > 1 else "unsplit_sums"
        return {"mixed": self.step[sums], "softmax": self.step["partial_softmax"]}

    def _stored(self) -> dict[str, Tensor | None]:
        parts: dict[str, Tensor | None] = {}
        for side, store in (("key", self.keys), ("value", self.values)):
            codes, *scales = (tensor[self.layer] for tensor in store.tensors.values())
            parts[f"{side}_codes"] = codes
            parts[f"{side}_scales"] = scales[0] if scales else None
        centers = self.keys.centers
        parts["centers"] = None if centers is None else centers.vectors[self.layer]
        return parts

    def _kinds(self) -> dict[str, Constant]:
        return {"KEYS": KINDS[type(self.keys)], "VALUES": KINDS[type(self.values)]}

    def _append(self) -> Launch:
        step, tokens = self.step, self.step.shape.tokens
        names: tuple[BufferName, ...] = (
            "q",
            "k",
            "v",
            "rotation",
            "hadamard",
            "cached",
            "cache_rows",
            "queries",
        )
        return Launch(
            append,
            (tokens, self._rows // tokens + 2, self._heads),
            {
                **{name: step[name] for name in names},
                "transformed": step["transformed_queries_on_gpu"],
                **self._stored(),
                "ahead": self.ahead,
                "sines": step["rotation"][0].numel() if self.sines is None else self.sines,
                "room": self._room,
                "scale": self._size**-0.5,
                "tokens": tokens,
            },
            {
                "HEADS": self._heads_of_one,
                "SHARED": self._rows // tokens,
                "PAIRS": self._pairs,
                "D": self._size,
                **self._kinds(),
            },
        )

    def _attend(self) -> Launch:
        return self._by_dot() if self.lowering is Lowering.DOT else self._by_gluon()

    def _by_dot(self) -> Launch:
        return Launch(
            attend,
            (self.splits, self._blocks, self._heads),
            self._attended(),
            {"BLOCK_R": self._block_rows, "BLOCK_S": self._block_tokens, **self._sizes()},
            warps=self._warps,
            stages=2,
        )

    def _by_gluon(self) -> Launch:
        # Not every Triton that serves other cards has Gluon.
        from glm4q.kernels.gpu.attention.gluon_attend import attend

        turing, few = self.lowering is Lowering.TURING_MMA, self._block_rows == SMALLEST_TILE
        # The centre of INT4 keys takes registers, and Turing has the least shared memory.
        wide = few and not turing and not self.keys.hadamard
        return Launch(
            attend,
            (self.splits, self._blocks, self._heads),
            self._attended(),
            {
                "TURING": turing,
                "SEVERAL": self.step.shape.tokens > 1,
                "BLOCK_R": self._block_rows,
                "BLOCK_S": BLOCK_S if wide else SHORT_BLOCK_S,
                **self._sizes(),
            },
            # No warps side by side where there are many rows: each has its rows' scores to itself.
            warps=8 if wide else 4,
        )

    def _attended(self) -> dict[str, Argument]:
        step = self.step
        queries: BufferName | LentUse
        queries = "transformed_queries_on_gpu" if self.keys.hadamard else "queries"
        return {
            "queries": step[queries],
            "plain_queries": step["queries"],
            **self._stored(),
            "frequencies": step["frequencies"],
            "tile_rotation": step["tile_rotation"],
            "cached": step["cached"],
            "cache_rows": step["cache_rows"],
            "ahead": self.ahead,
            **self._results,
            "room": self._room,
            "splits": self.splits,
            "rows": self._rows,
            "tokens": step.shape.tokens,
        }

    def _sizes(self) -> dict[str, Constant]:
        return {
            "HEADS": self._heads_of_one,
            "D": self._size,
            "PAIRS": self._pairs,
            "BLOCK_P": max(triton.next_power_of_2(self._pairs), SMALLEST_TILE),
            "TILE": self.step["tile_rotation"].shape[1],
            **self._kinds(),
        }

    def _merge(self) -> Launch:
        step = self.step
        return Launch(
            merge,
            (self._rows, self._heads),  # a card takes few of the second
            {
                **self._results,
                "hadamard": step["hadamard"],
                "out": step["attended"],
                "splits": self.splits,
                "rows": self._rows,
                "tokens": step.shape.tokens,
            },
            {
                "HEADS": self._heads_of_one,
                "BLOCK_SPLITS": triton.next_power_of_2(self.splits),
                "D": self._size,
                "HADAMARD": self.values.hadamard,
            },
            warps=8 if self.splits > 1 else 2,  # one row of 128 numbers needs no more
        )
