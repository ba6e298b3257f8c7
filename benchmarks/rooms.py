"""Print which folders and files at the top of each package import which others.

Run it by `python -m benchmarks.rooms`. tests/test_rooms.py limits what it may print.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("calculator", "glm4q", "quantize")
DOORS = ("__init__", "__main__")
"""Files that name the others and that none of them imports."""

Graph = Mapping[str, frozenset[str]]


def read_graph(package: str) -> Graph:
    """List, for each folder and file at the top of a package, those that it imports anywhere."""
    top = ROOT / package
    names = {file.stem for file in top.glob("*.py")} - set(DOORS)
    names |= {file.parent.name for file in top.glob("*/__init__.py")}
    return {
        name: frozenset(
            each
            for file in (*(top / name).rglob("*.py"), top / f"{name}.py")
            if file.is_file()
            for each in _imported(file, package)
            if each in names - {name}
        )
        for name in sorted(names)
    }


def _imported(file: Path, package: str) -> Iterator[str]:
    """Yield the second name of each module of the package that a file imports.

    Imports inside of functions count too.
    """
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            first, _, rest = module.partition(".")
            if first == package:
                yield rest.partition(".")[0]


def levels(graph: Graph) -> dict[str, int]:
    """Give each name its level: 1 imports no other. Raises graphlib.CycleError at a circle."""
    tuple(TopologicalSorter(graph).static_order())

    @cache
    def level(name: str) -> int:
        return 1 + max((level(each) for each in graph[name]), default=0)

    return {name: level(name) for name in graph}


def main() -> None:
    """Print every package from its top level down."""
    for package in PACKAGES:
        graph = read_graph(package)
        level = levels(graph)
        print(f"{package}: {len(graph)} folders and files on {max(level.values())} levels")
        for name in sorted(graph, key=lambda each: (-level[each], each)):
            print(f"  {level[name]:2} {name:14} {' '.join(sorted(graph[name]))}".rstrip())


if __name__ == "__main__":
    main()
