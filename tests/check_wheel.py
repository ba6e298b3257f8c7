"""Check a wheel as `make wheel` builds it: its name, its contents, and that it answers installed.

python tests/check_wheel.py dist/glm4q-0.1.0-cp311-abi3-linux_x86_64.whl build/demo/int8
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("calculator", "glm4q", "quantize")
DATA = (
    "*.css",
    "*.csv",
    "*.html",
    "*.js",
    "*.json",
    "*.jsonl",
    "*.md",
    "*.svg",
    "*.txt",
    "*.pyi",
    "py.typed",
)
TAG = "cp311-abi3-linux_x86_64"
EXTENSION = "glm4q/_native.abi3.so"
QUESTION = "What is the capital of France?"
ANSWER = "Paris"


def problems(wheel: Path) -> Iterator[str]:
    """What is wrong with the wheel's name and contents."""
    if not wheel.stem.endswith(TAG):
        yield f"{wheel.name} is not for {TAG}"
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {EXTENSION, *map(str, _sources())}
    for name in sorted(wanted - held):
        yield f"{wheel.name} lacks {name}"
    for name in sorted(held - wanted):
        yield f"{wheel.name} has {name}, which no user needs"


def _sources() -> Iterator[Path]:
    """Modules and data of the packages, as their files lie here."""
    for package in PACKAGES:
        for pattern in ("*.py", *DATA):
            for file in (ROOT / package).rglob(pattern):
                yield file.relative_to(ROOT)


def answer(wheel: Path, model: Path) -> str:
    """Install the wheel in an empty environment, and ask it with the native kernels."""
    with tempfile.TemporaryDirectory(prefix="glm4q-wheel-") as directory:
        python = Path(directory) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        constraints = ["--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, *constraints, str(wheel.resolve())], check=True)
        glm4q = Path(directory) / "bin" / "glm4q"
        question = ["--kernel", "native", "--prompt", QUESTION]
        asked = [str(glm4q), "chat", str(model.resolve()), *question]
        # Not in the checkout, whose packages would be found first.
        ran = subprocess.run(
            asked, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    return ran.stdout + ran.stderr


def main() -> int:
    """Print what is wrong, or the answer; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("model", type=Path)
    options = parser.parse_args()
    found = list(problems(options.wheel))
    if not found:
        said = answer(options.wheel, options.model)
        print(f"{options.wheel.name}, installed alone: {said.strip()}")
        if ANSWER not in said:
            found = [f"the answer to {QUESTION!r} does not name {ANSWER}"]
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
