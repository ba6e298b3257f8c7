"""JavaScript modules as one script, so that a page that uses them can be one file.

A server's page loads the same modules one by one. Only two forms are known: `import { a, b } from
"./file.js";` on one line, and `export` before a const or a function.
"""

import re
from pathlib import Path

IMPORT = re.compile(r'^import \{ (.+) \} from "\./(\w+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:const|function) (\w+|\$))", re.MULTILINE)


def bundle(folder: Path, entry: str) -> str:
    """Return a script that runs the module and those that it imports, each once."""
    order: list[str] = []
    _visit(folder, entry, order)
    return "\n".join(['"use strict";', "const modules = {};", *(_wrap(folder, n) for n in order)])


def _visit(folder: Path, name: str, order: list[str]) -> None:
    for _, imported in IMPORT.findall(_read(folder, name)):
        _visit(folder, imported, order)
    if name not in order:
        order.append(name)


def _wrap(folder: Path, name: str) -> str:
    """Keep the module's names in a function of its own, which returns what it exports."""
    source = _read(folder, name)
    exported = ", ".join(match.group(1) for match in EXPORT.finditer(source))
    body = EXPORT.sub("", IMPORT.sub(r"const { \1 } = modules.\2;", source))
    return f"modules.{name} = (() => {{\n{body}return {{ {exported} }};\n}})();"


def _read(folder: Path, name: str) -> str:
    return (folder / f"{name}.js").read_text(encoding="utf-8")
