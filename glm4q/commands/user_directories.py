"""Where a user's own files are, by the XDG Base Directory Specification."""

import os
from pathlib import Path


def state_directory() -> Path:
    """Return where a chat keeps its history."""
    return _directory("XDG_STATE_HOME", ".local/state")


def config_directory() -> Path:
    """Return where a user's defaults are."""
    return _directory("XDG_CONFIG_HOME", ".config")


def _directory(variable: str, otherwise: str) -> Path:
    """The specification says that a relative path in a variable is ignored."""
    stated = Path(os.environ.get(variable, ""))
    return (stated if stated.is_absolute() else Path.home() / otherwise) / "glm4q"
