"""Reads the project's Markdown pages: their blocks of code, words and links."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.paths import ROOT

README = ROOT / "README.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}-{self.number}"

    def commands(self) -> list[tuple[str, str]]:
        """Split a console block into (command, what it prints)."""
        return re.findall(r"^\$ (.*?)\n(.*?)(?=^\$ |\Z)", self.text, re.M | re.S)


def blocks(language: str) -> list[Block]:
    """Every block of a language, on all pages."""
    return [block for page in PAGES for block in _blocks(page) if block.language == language]


def languages() -> set[str]:
    """The languages of all blocks on all pages."""
    return {block.language for page in PAGES for block in _blocks(page)}


def _blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [Block(page, number, *each) for number, each in enumerate(found)]


def links(page: Path) -> set[Path]:
    """Files of the project that a page links to."""
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


def words(text: str) -> int:
    """Count words as `wc -w` does."""
    return len(text.split())
