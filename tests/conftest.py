"""The machine that tests run on: threads, another build of the extension, fewer instruction sets.

Nothing here imports torch or the project at the top: options say first what those find.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

KEPT = ("__pycache__/", "_cache/", ".hypothesis/", "build/")
"""What tools keep in the checkout, and build/, where tests keep what takes long to make."""
BEFORE = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--native", type=Path, help="another build of the native extension")
    parser.addoption(
        "--instruction-set", help="the newest instruction set of the machine: avx2, scalar ..."
    )
    parser.addoption(
        "--compiled-for",
        metavar="CAPABILITY",
        help="with a CUDA device: run the kernels that an older card gets: 7.5, 8.6 or 8.9",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Threads of torch that wait must not keep a core busy: worker processes share the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return  # worker processes run the tests, and this one need not import torch
    if path := config.getoption("--native"):
        _load_extension(path)
    if name := config.getoption("--instruction-set"):
        from tests.instruction_sets import limit_to

        limit_to(name)
    if capability := config.getoption("--compiled-for"):
        from tests.gpu.compiled_for import compile_for

        compile_for(capability)
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        _share_cores(int(workers))
    config.pluginmanager.import_plugin("tests.fixtures")
    config.pluginmanager.import_plugin("tests.browser")


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[BEFORE] = _untracked()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run where tests left files in the checkout, also those that git ignores."""
    before: set[str] = session.config.stash.get(BEFORE, set[str]())
    left = sorted(_untracked() - before)
    if left and not hasattr(session.config, "workerinput"):  # once, and not by worker processes
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        sys.stderr.write(f"\nThese files are new in the checkout: {', '.join(left)}\n")


def _share_cores(workers: int) -> None:
    """Give each worker process its part of the cores: more threads would only wait for each other.

    Tests that several threads concern ask for `several_threads`.
    """
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def _untracked() -> set[str]:
    """Files and whole directories that git does not track; none where there is no git."""
    if not shutil.which("git"):
        return set()
    command = ["git", "ls-files", "--others", "--directory"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {name for name in listed.stdout.splitlines() if not name.endswith(KEPT)}


def _load_extension(path: Path) -> None:
    """Put that build in the place of the installed one, before the project imports it."""
    spec = importlib.util.spec_from_file_location("glm4q._native", path)
    if spec is None or spec.loader is None:
        raise pytest.UsageError(f"{path} is no extension module")
    sys.modules["glm4q._native"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
