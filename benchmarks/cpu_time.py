"""Speed of a checkpoint on one thread by CPU time: true where others use the machine as well.

    python -m benchmarks.cpu_time DIRECTORY DEPTHS PROMPT DECODE RUNS

Answers in JSON, as `glm4q bench --json` does; bandwidth is not told, for it is not of one thread.
"""

import json
import sys
import time
from pathlib import Path

import torch

from calculator.settings import Settings
from calculator.stored import StoredModel
from glm4q.bench.measure import measure
from glm4q.bench.report import dtype_name, record
from glm4q.bench.workload import Workload, parse_depths
from glm4q.devices import choose_dtype
from glm4q.kernels.choose import KERNELS

CPU = torch.device("cpu")


def main(directory: str, depths: str, *numbers: str) -> None:
    torch.set_num_threads(1)
    dtype = choose_dtype("auto", CPU)
    workload = Workload(parse_depths(depths), *map(int, numbers))
    found = measure(
        StoredModel.open(Path(directory)),
        workload,
        Settings(context=workload.context, kv=dtype_name(dtype), embedding="host", compute="host"),
        device=CPU,
        dtype=dtype,
        kernels=KERNELS,
        clock=time.process_time,
    )
    print(json.dumps(record(found, directory, CPU, dtype)))


if __name__ == "__main__":
    main(*sys.argv[1:])
