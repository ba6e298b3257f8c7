"""Where a user's own files are, by the XDG Base Directory Specification."""

import os
from pathlib import Path


def state_directory() -> Path:
    """Return where a chat keeps its history: `$XDG_STATE_HOME/glm4q`, or `~/.local/state/glm4q`.

    The specification says that a relative path in the variable is ignored.
    """
    stated = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (stated if stated.is_absolute() else Path.home() / ".local/state") / "glm4q"
