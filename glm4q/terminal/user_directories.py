"""Where a user's own files are, by the XDG Base Directory Specification."""

import os
from pathlib import Path


def state_directory() -> Path:
    """Return where a chat keeps its history: `$XDG_STATE_HOME/glm4q`, or `~/.local/state/glm4q`.

    The specification says that a relative path in the variable is ignored.
    """
    return _user_directory("XDG_STATE_HOME", ".local/state")


def cache_directory() -> Path:
    """Return where files are that can be made again: `$XDG_CACHE_HOME/glm4q`."""
    return _user_directory("XDG_CACHE_HOME", ".cache")


def config_directory() -> Path:
    """Return where the user's settings are: `$XDG_CONFIG_HOME/glm4q`."""
    return _user_directory("XDG_CONFIG_HOME", ".config")


def data_directory() -> Path:
    """Return where checkpoints that were made by name lie: `$XDG_DATA_HOME/glm4q`."""
    return _user_directory("XDG_DATA_HOME", ".local/share")


def _user_directory(variable: str, usual: str) -> Path:
    stated = Path(os.environ.get(variable, ""))
    return (stated if stated.is_absolute() else _home() / usual) / "glm4q"


def _home() -> Path:
    """Return the user's home directory, and / where there is none, as in a container that runs as a
    user without a name: nothing of ours is found there, and nothing can be written.
    """
    home = Path(os.path.expanduser("~"))  # Path.home raises there
    return home if home.is_absolute() else Path("/")
