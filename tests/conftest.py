"""The machine that tests run on: threads, another build of the extension, fewer instruction sets.

Nothing here imports torch or the project at the top: options say first what those find.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--native", type=Path, help="another build of the native extension")
    parser.addoption(
        "--instruction-set", help="the newest instruction set of the machine: avx2, scalar ..."
    )


def pytest_configure(config: pytest.Config) -> None:
    # Threads of torch that wait must not keep a core busy: worker processes share the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if path := config.getoption("--native"):
        _load_extension(path)
    if name := config.getoption("--instruction-set"):
        from tests.instruction_sets import limit_to

        limit_to(name)
    config.pluginmanager.import_plugin("tests.fixtures")


def _load_extension(path: Path) -> None:
    """Put that build in the place of the installed one, before the project imports it."""
    spec = importlib.util.spec_from_file_location("glm4q._native", path)
    if spec is None or spec.loader is None:
        raise pytest.UsageError(f"{path} is no extension module")
    sys.modules["glm4q._native"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
