"""What the packages import is what pyproject.toml declares: for all, or for the one feature."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT

PACKAGES = ("calculator", "glm4q", "quantize")
EXTRAS = {
    "glm4q/commands/serve.py": "serve",
    "glm4q/server/": "serve",
    "glm4q/tools/browser/": "tools",
    "glm4q/tools/mcp/": "tools",
    "glm4q/weights/bitsandbytes_package.py": "bitsandbytes",
    "quantize/by_bitsandbytes.py": "bitsandbytes",
    "quantize/demo_model.py": "demo",
    "quantize/export/": "gguf",
    "calculator/report/pictures/png.py": "png",
}
"""Files and folders of a feature -> the extra that it is installed with."""
BROUGHT = {"glm4q/kernels/": "triton", "quantize/methods/gpu/": "triton"}
"""torch for CUDA has Triton among its own requirements; torch for the CPU needs none."""
BUILD = "glm4q/native/build.py"
"""Runs when the package is built, with what [build-system] requires."""


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def declared(*extras: str) -> set[str]:
    """The distributions that everybody gets, and those of some extras."""
    table = project()["project"]
    lines = [*table["dependencies"]]
    for extra in extras:
        lines += table["optional-dependencies"][extra]
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in lines}  # type: ignore[index]


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(file: Path) -> Iterator[str]:
    """The modules of others that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            module = name.partition(".")[0]
            if module not in sys.stdlib_module_names and module not in PACKAGES:
                yield module


def undeclared(name: str, modules: set[str], distributions: dict[str, list[str]]) -> set[str]:
    """The modules that a file imports though nothing that it is installed with has them."""
    allowed = declared(*(extra for place, extra in EXTRAS.items() if name.startswith(place)))
    allowed |= {module for place, module in BROUGHT.items() if name.startswith(place)}
    if name == BUILD:
        allowed |= {
            normal(re.split(r"\W", line)[0]) for line in project()["build-system"]["requires"]
        }
    return {
        module
        for module in modules
        if not allowed & {normal(each) for each in distributions.get(module, [module])}
    }


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Every file of the packages that imports modules of others, and these."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    found = {file.relative_to(ROOT).as_posix(): set(imported(file)) for file in files}
    return {name: modules for name, modules in found.items() if modules}


@pytest.fixture(scope="module")
def distributions() -> dict[str, list[str]]:
    """Which installed distributions have a module."""
    return {**importlib.metadata.packages_distributions()}


def test_every_import_is_declared(
    imports: dict[str, set[str]], distributions: dict[str, list[str]]
) -> None:
    """Another package may bring a module today, and drop it tomorrow."""
    faults = {name: undeclared(name, modules, distributions) for name, modules in imports.items()}
    assert {name: modules for name, modules in faults.items() if modules} == {}


def test_what_everybody_installs_is_used(
    imports: dict[str, set[str]], distributions: dict[str, list[str]]
) -> None:
    modules = set[str]().union(*imports.values())
    used = {normal(each) for module in modules for each in distributions.get(module, [module])}
    assert declared() <= used


def test_every_feature_has_its_place_and_its_extra(imports: dict[str, set[str]]) -> None:
    for place, extra in EXTRAS.items():
        assert (ROOT / place).exists()
        assert extra in project()["project"]["optional-dependencies"]
    served = "glm4q/server/worker.py"
    assert undeclared(served, {"uvicorn", "starlette"}, {}) == set()
    assert undeclared("glm4q/chat/template.py", {"uvicorn", "torch"}, {}) == {"uvicorn"}


def test_every_bound_is_met_here() -> None:
    """CONTRIBUTING.md says how the bounds were found; what is pinned here lies above them."""
    requirements = project()["project"]["dependencies"]
    pinned = dict(re.findall(r"^([\w.-]+)==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.M))
    versions = {normal(name): version for name, version in pinned.items()}
    for line in requirements:
        name, least = re.match(r"([\w.-]+)>=([\d.]+)", line).groups()  # type: ignore[union-attr]
        assert _numbers(versions[normal(name)]) >= _numbers(least), line


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
