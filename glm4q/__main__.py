"""The program `glm4q`; `python -m glm4q` is the same."""

import gc
import sys

from glm4q.commands.process.signals import end_at_once_on_stops


def run() -> int:
    """Import the command line and run one command."""
    end_at_once_on_stops()
    gc.disable()  # imports make no garbage, and the search for it is a tenth of a cold start
    from glm4q.cli import main  # after that: imports take long enough to be interrupted

    return main()


if __name__ == "__main__":
    sys.exit(run())
