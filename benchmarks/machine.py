"""Where a figure comes from: machine, versions, commit. And processes that answer in JSON."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import torch

from glm4q.measure.report import machine_name

LIMITED = [sys.executable, "-m", "benchmarks.limited"]
GLM4Q = [sys.executable, "-c", "import sys; from glm4q.cli import main; sys.exit(main())"]


def describe_machine(*packages: str) -> str:
    """One line for below a table."""
    names = ["torch", *packages]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    load = os.getloadavg()[0]
    return (
        f"{machine_name(torch.device('cpu'))}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, load average {load:.1f} at the end; "
        f"Python {platform.python_version()}, {versions}; commit {commit or 'unknown'}"
    )


def ask(command: list[str]) -> Any:
    """What a process that has to succeed prints last, read as JSON."""
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(command)[:200]} failed:\n{ran.stderr[-2000:]}")
    text = ran.stdout.strip()
    return json.loads(text if text.startswith("{") else text.splitlines()[-1])
