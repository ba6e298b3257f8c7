"""Small integers in 32-bit words, and GPTQ's layout of a quantized weight."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calculator.errors import CheckpointError
from glm4q.memory.workspace import split_scratch

WORD_BITS = 32
BOOK_SIZE = 16
"""Numbers that 4-bit codes can stand for."""


def pack(codes: Tensor, bits: int) -> Tensor:
    """[n, ...] codes -> [n * bits / 32, ...] int32 words, first code lowest; bits divides 32."""
    per_word = WORD_BITS // bits
    places = codes.unflatten(0, (-1, per_word)).unbind(1)
    words = places[0].to(torch.int32, copy=True)
    for place in range(1, per_word):
        words |= places[place].int() << (place * bits)  # the last shift sets the sign: it is data
    return words


def unpack(words: Tensor, bits: int) -> Tensor:
    """Undo `pack` exactly: int32 codes."""
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
    """[groups, N], float16; bitsandbytes' are float32."""
    qzeros: Tensor | None = None
    """int32 [groups, N * bits / 32]; None where every zero point is the middle code."""
    g_idx: Tensor | None = None
    """int32 [K], each input's group; None where groups are runs of inputs."""
    book: Tensor | None = None
    """float32 [2**bits], the numbers that codes stand for; None where a code minus its zero point
    is the number itself."""

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
        """Copy the weight to another device."""
        return replace(
            self,
            qweight=self.qweight.to(device),
            scales=self.scales.to(device),
            qzeros=None if self.qzeros is None else self.qzeros.to(device),
            g_idx=None if self.g_idx is None else self.g_idx.to(device),
            book=None if self.book is None else self.book.to(device),
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

    def dequantize_into(self, scratch: Tensor, dtype: torch.dtype) -> Tensor:
        """`dequantize` in the bytes of `scratch` alone, whose size `tile_bytes` says: [K, N]."""
        shape, grid = (self.inputs, self.outputs), tuple(self.scales.shape)
        codes, values, scales, zeros = split_scratch(
            scratch,
            (torch.int32, shape),
            (torch.float32, shape),
            (torch.float32, grid),
            (torch.float32, grid),
        )
        scales.copy_(self.scales)
        if self.qzeros is None:
            zeros.fill_(middle(self.bits))
        else:
            words = codes.flatten()[: zeros.numel()].view(grid[1], grid[0])
            zeros.copy_(unpack_into(self.qzeros.T, self.bits, words).T)
        unpack_into(self.qweight, self.bits, codes)
        if self.book is not None:
            torch.index_select(self.book, 0, codes.flatten(), out=values.flatten())
            zeros.zero_()
        else:
            values.copy_(codes)
        spent = codes.view(torch.float32)
        if self.g_idx is not None:
            values.sub_(torch.index_select(zeros, 0, self.g_idx, out=spent))
            values.mul_(torch.index_select(scales, 0, self.g_idx, out=spent))
        else:
            grouped = values.unflatten(0, (grid[0], -1))
            grouped.sub_(zeros.unsqueeze(1)).mul_(scales.unsqueeze(1))
        if dtype == torch.float32:
            return values
        (rounded,) = split_scratch(scratch, (dtype, shape))
        return rounded.copy_(values)

    def dequantize(self) -> Tensor:
        """float32 [K, N]: (code - zero_point) * scale, or the code's number of the book * scale."""
        if self.book is not None:
            numbers = self.book[self.codes()].unflatten(0, (self.scales.shape[0], -1))
            return (numbers * self.scales.unsqueeze(1)).flatten(0, 1)
        centered = self.codes()
        if self.g_idx is not None:
            group = self.g_idx.long()
            return centered.sub_(self.zero_points()[group]) * self.scales.float()[group]
        grouped = centered.unflatten(0, (self.scales.shape[0], -1))  # [groups, K / groups, N]
        grouped -= self.zero_points().unsqueeze(1)
        return (grouped * self.scales.float().unsqueeze(1)).flatten(0, 1)


def join(parts: list[QuantizedWeight]) -> QuantizedWeight:
    """One weight of the outputs of all parts, one after the other. Raises CheckpointError."""
    first, *others = parts
    for other in others:
        if not _are_same(first.g_idx, other.g_idx):
            raise CheckpointError("is stored in halves that order their inputs differently")
        if not _are_same(first.book, other.book):
            raise CheckpointError("is stored in halves of different code books")
    zeros = [part.qzeros for part in parts if part.qzeros is not None]
    return replace(
        first,
        qweight=_beside_each_other([part.qweight for part in parts]),
        scales=_beside_each_other([part.scales for part in parts]),
        qzeros=_beside_each_other(zeros) if zeros else None,
    )


def _are_same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def _beside_each_other(tensors: list[Tensor]) -> Tensor:
    """Outputs are the last dimension. A single tensor is not copied: a mapped file may hold it."""
    return tensors[0].contiguous() if len(tensors) == 1 else torch.cat(tensors, dim=-1)


def unpack_into(words: Tensor, bits: int, out: Tensor) -> Tensor:
    """`unpack` into an int32 tensor that is there already."""
    per_word = WORD_BITS // bits
    places = out.unflatten(0, (-1, per_word))
    for place in range(per_word):
        torch.bitwise_right_shift(words, place * bits, out=places[:, place])
    return out.bitwise_and_(2**bits - 1)


def middle(bits: int) -> int:
    """The zero point of symmetric codes."""
    return 1 << (bits - 1)
