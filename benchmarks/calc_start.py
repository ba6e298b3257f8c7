"""Cold start of `glm4q calc`: the whole process beside its least imports, and where time goes.

python benchmarks/calc_start.py

The yardstick is `import typer, rich.table`: `glm4q calc glm-4-9b-chat` is to take at most 1.5 times
as long. Modules are compiled first, as pip does when it installs them.
"""

import compileall
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 15
CARD = ("--weights", "int4", "--gpu", "4060")
YARDSTICK = "import typer, rich.table"
PACKAGES = ("calculator", "glm4q")


def command(*words: str) -> str:
    """Return the program that the script `glm4q` runs with these words."""
    return f"import sys; from glm4q.__main__ import run; sys.argv[1:] = {words!r}; run()"


PROGRAMS = {
    "python -c pass": "pass",
    "typer, rich.table": YARDSTICK,
    "glm4q --help": command("--help"),
    "glm4q calc": command("calc", "glm-4-9b-chat"),
    "glm4q calc --json": command("calc", "--json"),
    "calc with a card": command("calc", *CARD),
    "calc --grid": command("calc", *CARD, "--grid"),
    "calc --cards": command("calc", "--cards"),
    "calc --html": command("calc", *CARD, "--html", "page.html"),
}
SLOWEST = 12


def seconds(program: str, directory: str) -> tuple[float, float]:
    """Run a program, and return (wall seconds, CPU seconds of the process)."""
    begun, before = time.perf_counter(), os.times()
    subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, cwd=directory
    )
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system
    return time.perf_counter() - begun, cpu - before.children_system


def import_profile(program: str) -> list[tuple[int, str]]:
    """Return (microseconds of its own, module), slowest first, by `python -X importtime`."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", done.stderr)
    return sorted(((int(own), module) for own, module in lines), reverse=True)


def main() -> None:
    for package in PACKAGES:
        compileall.compile_dir(str(Path(__file__).parents[1] / package), quiet=1)
    with tempfile.TemporaryDirectory() as directory:
        # Interleaved, so that the machine's drift falls on all alike.
        runs = [
            {name: seconds(program, directory) for name, program in PROGRAMS.items()}
            for _ in range(RUNS)
        ]
    yardstick = [
        statistics.median(run["typer, rich.table"][kind] for run in runs) for kind in (0, 1)
    ]
    print("program             wall time   times   CPU time   times")
    for name in PROGRAMS:
        wall, cpu = (statistics.median(run[name][kind] for run in runs) for kind in (0, 1))
        print(
            f"{name:<19} {wall:.3f} s   {wall / yardstick[0]:5.2f}    {cpu:.3f} s   "
            f"{cpu / yardstick[1]:5.2f}"
        )
    print("\nimports of glm4q calc, each without the imports inside it")
    for own, module in import_profile(PROGRAMS["glm4q calc"])[:SLOWEST]:
        print(f"{own / 1000:6.1f} ms  {module}")


if __name__ == "__main__":
    main()
