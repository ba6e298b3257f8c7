"""Attention of GLM-4-9B's heads on the machine, whole or some blocks of it, beside torch's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor

from calculator.memory.workspace import FEW_TOKENS
from calculator.model.presets import PRESETS
from glm4q.kernels.cuda import lowering_of
from glm4q.kernels.gpu.attention.launches import MOST_ROWS
from tests.card.triton_driver import Block, PlayedDriver, played_driver
from tests.glm4q.kernels.gpu import interpreted

CONFIG = replace(PRESETS["glm-4-9b-chat"], num_hidden_layers=2)
SHARED = CONFIG.num_attention_heads // CONFIG.num_key_value_heads


@dataclass(frozen=True)
class AttentionCase:
    """New tokens after cached ones, in a cache with more room."""

    kv: str
    cached: int
    tokens: int
    capability: int
    room: int = 8192

    def __str__(self) -> str:
        return f"{self.kv} {self.cached} + {self.tokens} on {self.capability / 10}"

    @property
    def rows(self) -> int:
        return SHARED * self.tokens

    @property
    def is_draft(self) -> bool:
        """Whether each token is attended from by launches of its own, as a draft's are."""
        return self.cached > 0 and 1 < self.tokens <= FEW_TOKENS

    @property
    def whole(self) -> bool:
        """Whether all blocks run."""
        return self.rows <= MOST_ROWS or self.is_draft

    @property
    def chosen(self) -> list[int]:
        """The blocks of rows that run: all where there is one, else first, middle and last."""
        blocks = ceil(self.rows / MOST_ROWS)
        return sorted({0, blocks // 2, blocks - 1})

    def blocks(self, name: str, grid: Block) -> Sequence[Block] | None:
        if self.whole:
            return None
        x, y, z = (range(size) for size in grid)
        if name == "attend":
            return [(split, block, head) for split in x for block in self.chosen for head in z]
        rows = self._rows()
        if name == "merge":
            return [(row, head, 0) for row in rows for head in y]
        queries = {(row % self.tokens, row // self.tokens) for row in rows}
        stored = {(token, each) for token in x for each in range(SHARED, len(y))}
        return [(token, each, head) for token, each in queries | stored for head in z]

    def _rows(self) -> list[int]:
        runs = (range(MOST_ROWS * each, MOST_ROWS * (each + 1)) for each in self.chosen)
        return [row for run in runs for row in run if row < self.rows]

    def run(self) -> tuple[PlayedDriver, float, int]:
        """The driver with its launches, the largest error of a row, and codes that differ."""
        heads, size = (CONFIG.num_attention_heads, CONFIG.num_key_value_heads), CONFIG.head_dim
        given = 2 * torch.randn(2, 1, heads[1], self.cached, size)
        new = tuple(
            2 * torch.randn(1, self.tokens, count, size).bfloat16()
            for count in (heads[0], *heads[1:] * 2)
        )
        with played_driver(self.capability, blocks=self.blocks) as driver:
            ours, theirs, caches = interpreted.attend(
                CONFIG,
                self.kv,
                given,
                new,
                self.room,
                lowering=lowering_of(divmod(self.capability, 10)),
            )
        attended, expected = (self._chosen_rows(each) for each in (ours, theirs))
        error = (attended - expected).norm(dim=-1) / expected.norm(dim=-1)
        return driver, float(error.max()), sum(int((a != b).sum()) for a, b in caches)

    def _chosen_rows(self, attended: Tensor) -> Tensor:
        """[Hkv, rows, D] of what ran, float32."""
        split = attended.float().view(self.tokens, -1, SHARED, CONFIG.head_dim)
        rows = split.permute(1, 2, 0, 3).flatten(1, 2)
        return rows if self.whole else rows[:, self._rows()]
