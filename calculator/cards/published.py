"""Memory peaks that the authors of GLM-4-9B-Chat measured with their own stack.

Peaks of an A100 with transformers, one prompt at once, INT4 by bitsandbytes:
https://github.com/THUDM/GLM-4/blob/0423d7c/basic_demo/README_en.md
"""

from itertools import pairwise

PEAK_MIB: dict[str, dict[int, int]] = {
    "bf16": {1_000: 19_047, 8_000: 20_629, 32_000: 27_779, 128_000: 57_379},
    "int4": {1_000: 8_251, 8_000: 9_613, 32_000: 16_065},
}
"""Tokens of the prompt and MiB at the peak, for each kind of weights."""


def published_context(weights: str, usable_bytes: int) -> int:
    """Return the longest prompt within these bytes, along lines between measurements.

    0 below the shortest measured; beyond the longest along the last line.
    """
    points = [(tokens, mib << 20) for tokens, mib in PEAK_MIB[weights].items()]
    if usable_bytes < points[0][1]:
        return 0
    for (first, low), (last, high) in pairwise(points):
        if usable_bytes < high or last == points[-1][0]:
            return first + (usable_bytes - low) * (last - first) // (high - low)
    raise AssertionError("the last line has no end")
