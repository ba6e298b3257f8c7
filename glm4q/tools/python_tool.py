"""The cage as a tool that a model is offered: code in, what it prints out, figures as files."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

from glm4q.tools.cage.python import PythonCage
from glm4q.tools.functions import TOOL_SECONDS, Tool

CALL_SECONDS = TOOL_SECONDS - 10
"""The cage ends a call before the call is given up: so the next one finds no code running."""


@contextmanager
def python_tool(directory: Path, announce: Callable[[str], None]) -> Iterator[Tool]:
    """Open a cage and offer it until the `with` block ends. Raises OptionError without a cage.

    directory: where files that the code leaves are written. announce: says in one line which.
    """
    # bubblewrap ends with the thread that started it, so that thread lives as long as the tool.
    with ThreadPool(1) as thread, closing(PythonCage(CALL_SECONDS)) as cage:

        def python(code: str) -> str:
            """Run Python code in a session that keeps its names from call to call.

            Print what you want to read. The code has no network; files that it writes to the
            current directory are given to the user.
            """
            result = thread.apply(cage.run, (code,))
            written = save_files(result.files, directory)
            if not written:
                return result.output
            announce(f"python has written {', '.join(map(str, written))}")
            names = ", ".join(path.name for path in written)
            return f"{result.output}\n[files given to the user: {names}]"

        tool = Tool.from_function(python)
        yield replace(tool, native=replace(tool, kind="python"))


def save_files(files: dict[str, bytes], directory: Path) -> list[Path]:
    """Write files under their own names. One that exists already is kept: a number is added."""
    named = {name: content for name, content in files.items() if name not in ("", ".", "..")}
    if named:
        directory.mkdir(parents=True, exist_ok=True)
    return [_save(directory / name, content) for name, content in named.items()]


def _save(path: Path, content: bytes) -> Path:
    number, free = 1, path
    while True:
        try:
            with free.open("xb") as file:  # follows no link that lies there
                file.write(content)
        except FileExistsError:
            number += 1
            free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        else:
            return free
