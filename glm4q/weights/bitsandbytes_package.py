"""Import bitsandbytes without letting it fetch and run code that was not installed."""

import logging
import sys
from functools import cache
from types import ModuleType

HUB = "kernels"
"""A package by which bitsandbytes, as it is imported, fetches code from Hugging Face to run it."""


@cache
def bitsandbytes_functions() -> ModuleType:
    """The module bitsandbytes.functional. Raises ImportError where the package is not there."""
    known, logger = sys.modules.get(HUB), logging.getLogger("bitsandbytes")
    level = logger.level
    sys.modules[HUB] = None  # type: ignore[assignment]  # so that to import it fails
    logger.setLevel(logging.ERROR)  # which it would warn of
    try:
        from bitsandbytes import functional
    finally:
        logger.setLevel(level)
        del sys.modules[HUB]
        if known is not None:
            sys.modules[HUB] = known
    return functional
