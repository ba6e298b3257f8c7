"""Limits of NVIDIA's architectures, by compute capability.

From the table "Technical specifications per compute capability" of the CUDA C++ programming guide:
https://docs.nvidia.com/cuda/cuda-c-programming-guide/#features-and-technical-specifications
"""

from dataclasses import dataclass

WARP = 32
REGISTERS = 65_536
"""Registers of a multiprocessor."""
MOST_REGISTERS = 255
"""The most registers of a thread."""


@dataclass(frozen=True)
class Architecture:
    """One generation of multiprocessors."""

    shared_block: int
    """Bytes of shared memory that one block can have."""
    shared: int
    """Bytes that all blocks of a multiprocessor share."""
    warps: int
    """Warps at once, on a multiprocessor."""
    blocks: int
    """Blocks at once, on a multiprocessor."""
    issue_per_lane: int
    """Instructions issued for each float32 operation that the data sheet counts: Turing's
    schedulers issue twice as many as its float32 lanes take."""

    def resident_warps(self, *, registers: int, shared_bytes: int, warps: int) -> int:
        """How many warps of blocks of so many fit on a multiprocessor."""
        reserved = 1024 if self.blocks != 16 or self.warps != 32 else 0  # by the driver, not Turing
        by_registers = REGISTERS // (-(-registers // 8) * 8 * WARP) // warps
        by_shared = self.shared // max(shared_bytes + reserved, 1)
        return min(by_registers, by_shared, self.warps // warps, self.blocks) * warps


KIB = 1024
ARCHITECTURES = {
    75: Architecture(64 * KIB, 64 * KIB, 32, 16, 2),
    80: Architecture(163 * KIB, 164 * KIB, 64, 32, 2),
    86: Architecture(99 * KIB, 100 * KIB, 48, 16, 1),
    89: Architecture(99 * KIB, 100 * KIB, 48, 24, 1),
    90: Architecture(227 * KIB, 228 * KIB, 64, 32, 1),
    120: Architecture(99 * KIB, 100 * KIB, 48, 24, 1),
}
