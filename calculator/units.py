"""Bytes in words."""

GIB = 1 << 30
MIB = 1 << 20
KIB = 1 << 10


def human_bytes(count: int) -> str:
    """As a person reads it.

    >>> human_bytes(6_690_488_320), human_bytes(20_800), human_bytes(12)
    ('6.23 GiB', '20.3 KiB', '12 B')
    """
    if count < 0:
        return f"-{human_bytes(-count)}"
    if count >= GIB:
        return f"{count / GIB:.2f} GiB"
    if count >= MIB:
        return f"{count / MIB:.1f} MiB"
    return f"{count / KIB:.1f} KiB" if count >= KIB else f"{count} B"


def human_band(low: float, high: float) -> str:
    """A band of speeds.

    >>> human_band(17.3, 32.8), human_band(1.84, 3.4)
    ('17 to 33', '1.8 to 3.4')
    """
    digits = 0 if high >= 10 else 1
    return f"{low:.{digits}f} to {high:.{digits}f}"


def human_tokens(count: int) -> str:
    """A context as a person names it.

    >>> human_tokens(131072), human_tokens(1000)
    ('128K', '1000')
    """
    return f"{count // KIB}K" if count >= KIB and count % KIB == 0 else str(count)
