"""Bytes in words."""

GIB = 1 << 30
MIB = 1 << 20
KIB = 1 << 10


def human_bytes(count: int) -> str:
    """As a person reads it.

    >>> human_bytes(6_690_488_320), human_bytes(20_800), human_bytes(12)
    ('6.23 GiB', '20.3 KiB', '12 B')
    """
    if count >= GIB:
        return f"{count / GIB:.2f} GiB"
    if count >= MIB:
        return f"{count / MIB:.1f} MiB"
    return f"{count / KIB:.1f} KiB" if count >= KIB else f"{count} B"
