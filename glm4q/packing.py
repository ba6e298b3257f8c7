"""Small integers in 32-bit words, and GPTQ's layout of a quantized weight."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

WORD_BITS = 32


def pack(codes: Tensor, bits: int) -> Tensor:
    """[n, ...] codes -> [n * bits / 32, ...] int32 words, first code lowest; bits divides 32."""
    per_word = WORD_BITS // bits
    places = codes.unflatten(0, (-1, per_word)).unbind(1)
    words = places[0].to(torch.int32, copy=True)
    for place in range(1, per_word):
        words |= places[place].int() << (place * bits)  # the last shift sets the sign: it is data
    return words


def unpack(words: Tensor, bits: int) -> Tensor:
    """The exact inverse of `pack`: int32 codes."""
    shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32, device=words.device)
    shifts = shifts.view(1, -1, *[1] * (words.dim() - 1))
    return (words.unsqueeze(1) >> shifts).bitwise_and_(2**bits - 1).flatten(0, 1)


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight of N outputs and K inputs as GPTQ lays it out, with true zero points."""

    bits: int
    qweight: Tensor
    """int32 [K * bits / 32, N]: codes packed along the inputs."""
    scales: Tensor
    """float16 [groups, N]."""
    qzeros: Tensor | None = None
    """int32 [groups, N * bits / 32]; None where every zero point is the middle code."""
    g_idx: Tensor | None = None
    """int32 [K], each input's group; None where groups are runs of inputs."""

    @property
    def inputs(self) -> int:
        return self.qweight.shape[0] * WORD_BITS // self.bits

    @property
    def outputs(self) -> int:
        return self.qweight.shape[1]

    def codes(self) -> Tensor:
        """int32 [K, N], 0 to 2**bits - 1."""
        return unpack(self.qweight, self.bits)

    def zero_points(self) -> Tensor:
        """int32 [groups, N]."""
        if self.qzeros is None:
            return torch.full(
                self.scales.shape, middle(self.bits), dtype=torch.int32, device=self.scales.device
            )
        return unpack(self.qzeros.T, self.bits).T

    def to(self, device: torch.device) -> "QuantizedWeight":
        """The same weight on another device."""
        return replace(
            self,
            qweight=self.qweight.to(device),
            scales=self.scales.to(device),
            qzeros=None if self.qzeros is None else self.qzeros.to(device),
            g_idx=None if self.g_idx is None else self.g_idx.to(device),
        )

    def columns(self, start: int, stop: int) -> "QuantizedWeight":
        """The outputs from `start` to `stop`, multiples of 32 / bits; shares memory."""
        words = slice(start * self.bits // WORD_BITS, stop * self.bits // WORD_BITS)
        return replace(
            self,
            qweight=self.qweight[:, start:stop],
            scales=self.scales[:, start:stop],
            qzeros=None if self.qzeros is None else self.qzeros[:, words],
        )

    def dequantize(self) -> Tensor:
        """float32 [K, N]: (code - zero_point) * scale."""
        centered = self.codes()
        if self.g_idx is not None:
            group = self.g_idx.long()
            return centered.sub_(self.zero_points()[group]) * self.scales.float()[group]
        grouped = centered.unflatten(0, (self.scales.shape[0], -1))  # [groups, K / groups, N]
        grouped -= self.zero_points().unsqueeze(1)
        return (grouped * self.scales.float().unsqueeze(1)).flatten(0, 1)


def middle(bits: int) -> int:
    """The zero point of symmetric codes."""
    return 1 << (bits - 1)
