"""Speed of a checkpoint on one thread by CPU time: true where others use the machine as well.

    python -m benchmarks.cpu_time DIRECTORY DEPTHS PROMPT DECODE RUNS [INSTRUCTION_SET]

Answers in JSON, as `glm4q bench --json` does; bandwidth is not told, for it is not of one thread.
"""

import json
import sys
import time
from pathlib import Path

import torch

from calculator.checkpoint.stored import StoredModel
from calculator.questions.fit import Wish
from glm4q.measure.report import record
from glm4q.measure.speed import measure
from glm4q.measure.workload import Workload, parse_depths
from glm4q.planning.devices import dtype_name
from glm4q.planning.machine import choose_machine
from glm4q.planning.plan import plan_run
from tests.instruction_sets import limit_to


def main(
    directory: str, depths: str, prompt: str, decode: str, runs: str, isa: str | None = None
) -> None:
    if isa is not None:
        limit_to(isa)
    torch.set_num_threads(1)
    machine = choose_machine("cpu", "auto", "auto")
    workload = Workload(parse_depths(depths), *map(int, (prompt, decode, runs)))
    stored = StoredModel.open(Path(directory))
    wish = Wish(context=workload.context, kv=dtype_name(machine.dtype), draft_tokens=0)
    plan = plan_run(stored, machine, wish)
    found = measure(stored, workload, plan, machine, clock=time.process_time)
    print(json.dumps(record(found, directory, machine)))


if __name__ == "__main__":
    main(*sys.argv[1:])
