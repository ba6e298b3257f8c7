"""C++ that tests need: compiled when one first asks for it, and kept under build/ by its text."""

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from tests.paths import ROOT

CARD = Path(__file__).parent
OPTIONS = "-std=c++20", "-O2", "-fPIC", "-shared"
TORCH = Path(torch.__file__).parent


@cache
def compiler() -> str | None:
    """The C++ compiler of this machine, if there is one."""
    return shutil.which(os.environ.get("CXX", "c++"))


@cache
def machine() -> ctypes.CDLL:
    """The machine that runs PTX. It takes half a minute where its sources are new.

    Without contraction a * b + c rounds twice, as the code that it runs asks for.
    """
    return _library(CARD / "ptx" / "machine", "-ffp-contract=off")


@cache
def guard() -> ctypes.CDLL:
    """What tells a torch without CUDA that there is a card."""
    return _library(CARD / "sim" / "guard", f"-I{TORCH / 'include'}", f"-L{TORCH / 'lib'}", "-lc10")


def _library(folder: Path, *options: str) -> ctypes.CDLL:
    files = sorted(folder.glob("*"))
    text = b"".join(file.read_bytes() for file in files)
    text += " ".join((*OPTIONS, *options, torch.__version__)).encode()
    built = ROOT / "build" / "card" / f"{folder.name}-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        # Two processes may build at once: each writes its own file, and the last rename stays.
        fresh = built.with_suffix(f".{os.getpid()}.so")
        _compile([file for file in files if file.suffix == ".cpp"], options, fresh)
        fresh.replace(built)
    return ctypes.CDLL(str(built))


def _compile(sources: Sequence[Path], options: Sequence[str], built: Path) -> None:
    command = [str(compiler()), *OPTIONS, *map(str, sources), *options, "-o", str(built)]
    subprocess.run(command, check=True, capture_output=True, text=True)
