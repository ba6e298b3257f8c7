"""The machine is C++. The first test that needs it compiles it; build/ keeps it by its text."""

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.paths import ROOT

SOURCES = Path(__file__).parent / "machine"
OPTIONS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-ffp-contract=off")
"""Without contraction a * b + c rounds twice, as the code that it runs asks for."""


@cache
def compiler() -> str | None:
    """The C++ compiler of this machine, if there is one."""
    return shutil.which(os.environ.get("CXX", "c++"))


@cache
def library() -> ctypes.CDLL:
    """The compiled machine. It takes half a minute where its sources are new."""
    files = sorted(SOURCES.glob("*"))
    text = b"".join(file.read_bytes() for file in files) + " ".join(OPTIONS).encode()
    built = ROOT / "build" / "ptx" / f"machine-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        # Two processes may build at once: each writes its own file, and the last rename stays.
        fresh = built.with_suffix(f".{os.getpid()}.so")
        sources = [str(file) for file in files if file.suffix == ".cpp"]
        command = [str(compiler()), *OPTIONS, *sources, "-o", str(fresh)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        fresh.replace(built)
    return ctypes.CDLL(str(built))
