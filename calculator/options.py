"""Words that several commands read from the command line."""

import re

from calculator.errors import OptionError

_COUNT = re.compile(r"([0-9]{1,12})([km]?)", re.IGNORECASE)


def parse_tokens(text: str) -> int:
    """A number of tokens: 4096, 128k (x 1024) or 1m (x 1024 x 1024). Raises OptionError.

    >>> parse_tokens("128k")
    131072
    """
    match = _COUNT.fullmatch(text.strip())
    if not match:
        raise OptionError(f"a number of tokens looks like 8192, 128k or 1m, not {text!r}")
    return int(match[1]) << {"": 0, "k": 10, "m": 20}[match[2].lower()]
