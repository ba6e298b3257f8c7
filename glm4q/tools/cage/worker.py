"""The program inside the cage: it limits itself, then runs the code that arrives.

It needs the standard library alone and imports nothing of glm4q, which the cage does not contain.
Each line of standard input is a JSON object {"code": ...}; each line that it answers is an object
{"output": ..., "files": {name: base64}}. Names and values live on between calls.
"""

import ast
import base64
import contextlib
import ctypes
import io
import json
import os
import platform
import resource
import struct
import sys
import traceback
from pathlib import Path
from typing import Any

MEGABYTE = 1 << 20
MOST_OUTPUT = 64 << 10
"""Characters of output that a call gives back."""
MOST_FILE_BYTES = 8 * MEGABYTE
MOST_FILES = 8
"""New files that a call gives back, each of MOST_FILE_BYTES at most."""

# Linux's numbers of system calls by machine. The last are ptrace, unshare, setns, mount, bpf,
# userfaultfd, perf_event_open, keyctl, process_vm_readv, process_vm_writev and io_uring_setup.
MACHINES = {
    "x86_64": (
        0xC000003E,
        {"fork": 57, "vfork": 58, "clone": 56, "clone3": 435},
        (101, 272, 308, 165, 321, 323, 298, 250, 310, 311, 425),
    ),
    "aarch64": (
        0xC00000B7,
        {"clone": 220, "clone3": 435},
        (117, 97, 268, 40, 280, 282, 241, 219, 270, 271, 425),
    ),
}
CLONE_THREAD = 0x10000
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
"""SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with the two errors."""
NUMBER_AT, MACHINE_AT, FIRST_ARGUMENT_AT = 0, 4, 16
"""Offsets in the kernel's `struct seccomp_data`."""
LOAD, EQUALS, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def limit_itself(memory_bytes: int, cpu_seconds: int, file_bytes: int) -> None:
    """Give up what no call needs. The limits cannot be raised again."""
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    _forbid_system_calls()


def _forbid_system_calls() -> None:
    """Forbid new processes, and the ways to another one: threads are all that `clone` still makes.

    RLIMIT_NPROC would not do: the kernel does not hold it against root.
    """
    program = _filter()
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and where they are.
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    for call in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(header), 0, 0),
    ):
        if libc.prctl(*call):
            sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")


def _filter() -> bytes:
    """Return a BPF program, as seccomp(2) describes it."""
    machine, calls, others = MACHINES[platform.machine()]

    def instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("=HBBI", code, then, otherwise, value)

    program = [
        instruction(LOAD, MACHINE_AT),
        instruction(EQUALS, machine, 1, 0),
        instruction(RETURN, EPERM),
        instruction(LOAD, NUMBER_AT),
        # glibc falls back from clone3, whose flags lie in memory, to clone.
        instruction(EQUALS, calls["clone3"], 0, 1),
        instruction(RETURN, ENOSYS),
    ]
    for number in (*(calls[name] for name in ("fork", "vfork") if name in calls), *others):
        program += [instruction(EQUALS, number, 0, 1), instruction(RETURN, EPERM)]
    program += [
        instruction(EQUALS, calls["clone"], 0, 3),
        instruction(LOAD, FIRST_ARGUMENT_AT),
        instruction(ANY_BIT, CLONE_THREAD, 1, 0),
        instruction(RETURN, EPERM),
        instruction(RETURN, ALLOW),
    ]
    return b"".join(program)


class Output(io.TextIOBase):
    """Keeps the first MOST_OUTPUT characters, so that endless output takes no memory."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._size = self._dropped = 0

    def write(self, text: str) -> int:
        kept = text[: MOST_OUTPUT - self._size]
        if kept:
            self.pieces.append(kept)
        self._size += len(kept)
        self._dropped += len(text) - len(kept)
        return len(text)

    def text(self) -> str:
        end = f"\n[{self._dropped:,} characters more are left out]" if self._dropped else ""
        return "".join(self.pieces) + end


def run(code: str, names: dict[str, Any]) -> str:
    """Run code as a notebook's cell: the value of a last expression is printed."""
    output = Output()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            tree = ast.parse(code, "<code>")
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "<code>", "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), "<code>", "eval"), names)
                if value is not None:
                    print(repr(value))
            save_figures()
        except BaseException:  # whatever the code raises is its answer, SystemExit too
            kind, value, trace = sys.exc_info()
            inner = trace.tb_next if trace else None
            output.write("".join(traceback.format_exception(kind, value, inner)))
    return output.text()


def save_figures() -> None:
    """Write the open figures of matplotlib as files."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    for number in pyplot.get_fignums():
        pyplot.figure(number).savefig(f"figure-{number}.png")
    pyplot.close("all")


def new_files(before: dict[str, float]) -> dict[str, str]:
    """Return the files of the working directory that are new or changed, as base64."""
    files: dict[str, str] = {}
    for path in sorted(Path().iterdir()):
        if len(files) == MOST_FILES:
            break
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_FILE_BYTES:
            continue
        if before.get(path.name) != path.stat().st_mtime_ns:
            files[path.name] = base64.b64encode(path.read_bytes()).decode()
    return files


def times() -> dict[str, float]:
    """Return when each file of the working directory was last written."""
    return {path.name: path.lstat().st_mtime_ns for path in Path().iterdir()}


def main() -> None:
    memory_megabytes, cpu_seconds, file_megabytes = map(int, sys.argv[1:4])
    # An isolated Python looks for no packages of the user.
    sys.path += [place for place in sys.argv[4:] if place not in sys.path]
    requests, answers = sys.stdin, os.fdopen(os.dup(1), "w")
    sys.stdin = open(os.devnull)  # noqa: SIM115 - it stays open
    limit_itself(memory_megabytes * MEGABYTE, cpu_seconds, file_megabytes * MEGABYTE)
    names: dict[str, Any] = {"__name__": "__main__"}
    for line in requests:
        before = times()
        output = run(json.loads(line)["code"], names)
        answers.write(json.dumps({"output": output, "files": new_files(before)}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
