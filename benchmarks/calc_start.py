"""Cold start of `glm4q calc`: the whole process, and how much of it are imports.

python benchmarks/calc_start.py
"""

import statistics
import subprocess
import sys
import time

RUNS = 15
PROGRAMS = {
    "python -c pass": "pass",
    "import typer": "import typer",
    "glm4q --help": "from glm4q.cli import main; main(['--help'])",
    "glm4q calc": "from glm4q.cli import main; main(['calc'])",
    "glm4q calc --json": "from glm4q.cli import main; main(['calc', '--json'])",
}


def seconds(program: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    # Interleaved, so that the machine's drift falls on all alike.
    runs = [{name: seconds(program) for name, program in PROGRAMS.items()} for _ in range(RUNS)]
    print("program             median    least")
    for name in PROGRAMS:
        times = [run[name] for run in runs]
        print(f"{name:<19} {statistics.median(times):.3f} s   {min(times):.3f} s")


if __name__ == "__main__":
    main()
