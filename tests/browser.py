"""A headless Chromium for the tests of pages, and axe-core, which finds what hinders some people.

Tests are skipped where there is no Chromium, no playwright, or no way to fetch axe-core.
"""

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.paths import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
SCREENSHOTS = ROOT / "build" / "screenshots"
AXE = ROOT / "build" / "axe"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's script, from the npm registry, kept in build/."""
    script = AXE / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("there is no npm on this machine to fetch axe-core")
        AXE.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--silent", "--prefix", str(AXE), "axe-core@4.10.3"]
        if subprocess.run(command, check=False, timeout=120, capture_output=True).returncode:
            pytest.skip("axe-core cannot be fetched")
    return script.read_text(encoding="utf-8")


def serious_problems(page: Any, axe: str) -> list[tuple[str, str]]:
    """What axe-core calls serious or critical: its rule, and the first element."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document)")["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    return [(each["id"], each["nodes"][0]["html"]) for each in serious]
