"""Bytes in words."""

GIB = 1 << 30
MIB = 1 << 20
KIB = 1 << 10


def human_bytes(count: int) -> str:
    """Return the size as a person reads it.

    >>> human_bytes(6_690_488_320), human_bytes(20_800), human_bytes(12), human_bytes(1008 << 10)
    ('6.23 GiB', '20.3 KiB', '12 B', '1.0 MiB')
    """
    if count < 0:
        return f"-{human_bytes(-count)}"
    # A unit begins at 1000 of the one below: "1.0 MiB" and not "1008.0 KiB".
    for size, unit, digits in ((GIB, "GiB", 2), (MIB, "MiB", 1), (KIB, "KiB", 1)):
        if count / size >= 1000 / 1024:
            return f"{count / size:.{digits}f} {unit}"
    return f"{count} B"


def human_band(low: float, high: float) -> str:
    """A band of speeds.

    >>> human_band(17.3, 32.8), human_band(1.84, 3.4), human_band(453, 1179)
    ('17 to 33', '1.8 to 3.4', '453 to 1,179')
    """
    digits = 0 if high >= 10 else 1
    return f"{low:,.{digits}f} to {high:,.{digits}f}"


def human_duration(low: float, high: float) -> str:
    """A band of seconds.

    >>> human_duration(12, 80), human_duration(4000, 9000), human_duration(100, 3000)
    ('12 to 80 s', '1.1 to 2.5 hours', '2 to 50 minutes')
    """
    for seconds, name in ((3600, "hours"), (60, "minutes")):
        if high >= 1.5 * seconds:
            digits = 1 if low / seconds < 10 and seconds == 3600 else 0
            return f"{low / seconds:.{digits}f} to {high / seconds:.{digits}f} {name}"
    return f"{low:.0f} to {high:.0f} s"


def counted(count: int, noun: str) -> str:
    """A number and its noun, in the singular where there is one of it.

    >>> counted(1, "token"), counted(1000, "token")
    ('1 token', '1,000 tokens')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def human_tokens(count: int) -> str:
    """A context as a person names it.

    >>> human_tokens(131072), human_tokens(1000)
    ('128K', '1000')
    """
    return f"{count // KIB}K" if count >= KIB and count % KIB == 0 else str(count)
