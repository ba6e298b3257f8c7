"""Cold start of `glm4q calc`: the whole process, and where its time goes.

python benchmarks/calc_start.py
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 15
CARD = "'--weights', 'int4', '--gpu', '4060'"
PROGRAMS = {
    "python -c pass": "pass",
    "import typer": "import typer",
    "glm4q --help": "from glm4q.cli import main; main(['--help'])",
    "glm4q calc": "from glm4q.cli import main; main(['calc'])",
    "glm4q calc --json": "from glm4q.cli import main; main(['calc', '--json'])",
    "calc with a card": f"from glm4q.cli import main; main(['calc', {CARD}])",
    "calc --grid": f"from glm4q.cli import main; main(['calc', {CARD}, '--grid'])",
    "calc --html": f"from glm4q.cli import main; main(['calc', {CARD}, '--html', 'page.html'])",
}
SLOWEST = 12


def seconds(program: str, directory: str) -> float:
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, cwd=directory
    )
    return time.perf_counter() - begun


def import_profile(program: str) -> list[tuple[int, str]]:
    """(microseconds of its own, module), slowest first, by `python -X importtime`."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", done.stderr)
    return sorted(((int(own), module) for own, module in lines), reverse=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        # Interleaved, so that the machine's drift falls on all alike.
        runs = [
            {name: seconds(program, directory) for name, program in PROGRAMS.items()}
            for _ in range(RUNS)
        ]
    print("program             median    least")
    for name in PROGRAMS:
        times = [run[name] for run in runs]
        print(f"{name:<19} {statistics.median(times):.3f} s   {min(times):.3f} s")
    print("\nimports of glm4q calc, each without those it makes")
    for own, module in import_profile(PROGRAMS["glm4q calc"])[:SLOWEST]:
        print(f"{own / 1000:6.1f} ms  {module}")


if __name__ == "__main__":
    main()
