"""Every CPU kernel beside the reference and beside float matmuls, on GLM-4-9B's widest layer.

    python -m benchmarks.kernels [--outputs 27392] [--inputs 4096] [--rows 1 4 512]
    OMP_NUM_THREADS=1 taskset -c 1 python -m benchmarks.kernels --isa avx2 avx_vnni --cpu-time

With --isa only the native kernels are timed, each on the instruction sets that are named.
--cpu-time counts the time of one thread, where other programs use the machine. Times are medians of
interleaved runs; GB/s is the weight's bytes over the time.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch.nn import functional as F

from calculator.model.formats import NF4, WeightFormat
from glm4q.kernels.choose import KERNELS
from glm4q.kernels.cpu.extension import extension
from glm4q.kernels.cpu.native import Native, matmul_dense
from glm4q.kernels.spec import Kernel, LinearSpec, multiply
from glm4q.weights.packing import QuantizedWeight, pack

RUNS = 5
ROWS = (1, 4, 8, 16, 512)
FORMATS = (WeightFormat(4, 128), WeightFormat(8, 128), NF4)
Run = Callable[[torch.Tensor], torch.Tensor]


def random_weight(outputs: int, inputs: int, weight_format: WeightFormat) -> QuantizedWeight:
    codes = torch.randint(2**weight_format.bits, (inputs, outputs), dtype=torch.uint8)
    scales = torch.rand(weight_format.groups(inputs), outputs)
    if weight_format.scheme == "nf4":
        return QuantizedWeight(4, pack(codes, 4), scales, book=torch.linspace(-1, 1, 16))
    return QuantizedWeight(weight_format.bits, pack(codes, weight_format.bits), scales.half())


def dense_matmul(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x.to(weight.dtype), weight)


def candidates(outputs: int, inputs: int) -> dict[str, tuple[int, Run]]:
    """What is compared: bytes of the weight, and the multiplication."""
    found: dict[str, tuple[int, Run]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        dense = torch.randn(outputs, inputs).to(dtype)
        found[f"F.linear {dtype}"] = dense.nbytes, partial(dense_matmul, dense)
    if extension() is not None:
        found["native bfloat16"] = dense.nbytes, partial(native_dense, dense)
    numbers = torch.ones(outputs * inputs // 2)
    found["reading memory"] = numbers.nbytes, partial(read_memory, numbers)
    return found | products(outputs, inputs, {kernel.name: kernel for kernel in KERNELS})


def products(
    outputs: int, inputs: int, kernels: Mapping[str, Kernel]
) -> dict[str, tuple[int, Run]]:
    """The multiplications by each format of weights with each kernel that takes it."""
    found: dict[str, tuple[int, Run]] = {}
    for weight_format in FORMATS:
        weight = random_weight(outputs, inputs, weight_format)
        for name, kernel in kernels.items():
            spec = LinearSpec(outputs, inputs, weight_format, torch.device("cpu"))
            if kernel.refuses(spec) is None:
                packed = kernel.pack(weight)
                held = sum(tensor.nbytes for tensor in packed.values())
                found[f"{name} {weight_format}"] = held, partial(multiply, kernel, spec, packed)
    return found


def native_dense(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Multiply as the head does."""
    out = torch.empty(len(x), len(weight))
    matmul_dense(x, weight, out)
    return out


def read_memory(numbers: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """What no kernel can be faster than, at one row: a sum over so many bytes."""
    return numbers.sum()


def seconds(run: Run, x: torch.Tensor, clock: Callable[[], float]) -> float:
    begun = clock()
    run(x)
    return clock() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outputs", type=int, default=27_392)
    parser.add_argument("--inputs", type=int, default=4096)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--isa", nargs="+", help="instruction sets: avx2, avx_vnni ...")
    options = parser.parse_args()
    clock = time.perf_counter
    if options.cpu_time:
        torch.set_num_threads(1)
        clock = time.thread_time
    if options.isa:
        kernels = {name: Native(name) for name in options.isa}
        compared = products(options.outputs, options.inputs, kernels)
    else:
        compared = candidates(options.outputs, options.inputs)
    print(f"[{options.outputs}, {options.inputs}], {torch.get_num_threads()} threads")
    for rows in options.rows:
        x = torch.randn(rows, options.inputs, dtype=torch.bfloat16)
        times: dict[str, list[float]] = {name: [] for name in compared}
        for _ in range(RUNS + 1):
            for name in times:
                times[name].append(seconds(compared[name][1], x, clock))
        print(f"\n{rows} rows of activations")
        for name, taken in times.items():
            held, _ = compared[name]
            median = statistics.median(taken[1:])  # the first run warms caches
            operations = 2 * rows * options.outputs * options.inputs / median
            print(
                f"  {name:<26} {median * 1e3:9.2f} ms  {held / median / 1e9:6.1f} GB/s  "
                f"{operations / 1e9:7.0f} GOP/s"
            )


if __name__ == "__main__":
    main()
