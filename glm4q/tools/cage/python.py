"""The `python` tool: a model's own code, run in a cage that lives as long as the conversation."""

import base64
import binascii
import json
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glm4q.tools.cage import worker
from glm4q.tools.cage.launch import cage_command, package_directories

MEMORY_MEGABYTES = 2048
CPU_SECONDS = 300
FILE_MEGABYTES = 64
SECONDS = 60.0
"""How long one call may take."""

MOST_ANSWER_BYTES = 2 * worker.MOST_FILES * worker.MOST_FILE_BYTES
"""More than an honest answer takes: base64 makes a third more of a file."""


@dataclass(frozen=True)
class Result:
    """What a call printed, and the files that it left."""

    output: str
    files: dict[str, bytes] = field(default_factory=dict)


class PythonCage:
    """Runs code in one cage. Names live on from call to call until a call has to be stopped."""

    def __init__(self, seconds: float = SECONDS) -> None:
        """Find a cage that opens on this machine. Raises OptionError where there is none."""
        limits = (str(MEMORY_MEGABYTES), str(CPU_SECONDS), str(FILE_MEGABYTES))
        # The worker is given as text: the cage does not see where glm4q is installed.
        source = Path(worker.__file__).read_text(encoding="utf-8")
        program = [sys.executable, "-I", "-c", source, *limits, *package_directories()]
        self._command = cage_command(program)
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, code: str) -> Result:
        """Run code. What went wrong is in the output; the next call begins anew after a stop."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"code": code}).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return self._stopped("the session ended")
        answer = self._read_answer(process)
        return self._stopped(answer) if isinstance(answer, str) else answer

    def close(self) -> None:
        """End the cage with all that runs in it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        return self._process

    def _read_answer(self, process: subprocess.Popen[bytes]) -> Result | str:
        """Return the answer's line, or why there is none. The code may have written anything."""
        assert process.stdout is not None
        line, until = bytearray(), time.monotonic() + self._seconds
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                return f"the code took more than {self._seconds:g} seconds"
            piece = process.stdout.read(1 << 16)
            if not piece:
                return "the code ended the session: it took more memory or time than it may"
            line += piece
            if len(line) > MOST_ANSWER_BYTES:
                return "the code wrote more than it may"
        return _read_result(bytes(line))

    def _stopped(self, reason: str) -> Result:
        self.close()
        return Result(f"error: {reason}; all names are forgotten")


def _read_result(line: bytes) -> Result | str:
    try:
        answer: Any = json.loads(line)
        files = {
            Path(name).name: base64.b64decode(text, validate=True)
            for name, text in answer["files"].items()
        }
        return Result(str(answer["output"]), files)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return "the code broke the session"
