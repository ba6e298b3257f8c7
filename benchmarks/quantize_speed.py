"""How fast GLM-4-9B's own layer shapes are quantized: rounding beside gguf's quantizer on the same
tensors in one run, whole layers from file to file beside llama.cpp's own quantizer, and GPTQ of one
layer, from which the time for the model follows.

    python -m benchmarks.quantize_speed [--samples 8] [--layers 4] [--without-gptq]
    python -m benchmarks.quantize_speed --without-rounding --without-llama --device cuda
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import gguf
import torch

from benchmarks.llama_speed import worker, write_tokenizer
from benchmarks.machine import GLM4Q, ask, describe_machine
from benchmarks.where_time_goes import clocked
from calculator.checkpoint.stored import StoredModel
from calculator.model.architecture import weights
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat
from calculator.model.presets import PRESETS
from glm4q.planning.devices import choose_dtype
from glm4q.weights.checkpoint import read_weight
from quantize.calibrate.walk import CalibrationWalk
from quantize.export.gguf import gguf_name
from quantize.export.gguf_metadata import ARCHITECTURES, add_metadata
from quantize.methods import rtn
from quantize.methods.codes import Packed
from quantize.output.layout import PlannedTensor
from quantize.output.shards import header
from quantize.quality.report import JSON_NAME
from tests.instruction_sets import limit_to

BUILD = Path("build")
LENGTH = 512
ROUNDS = 7
FORMATS = {"Q4_0": WeightFormat(4, 32), "Q8_0": WeightFormat(8, 32)}


def rounding() -> None:
    """One down_proj, the widest linear: GB of bf16 read a second, interleaved, medians."""
    config = PRESETS["glm-4-9b-chat"]
    weight = torch.randn(1024, config.intermediate_size).mul_(0.02).bfloat16()
    print("| format | glm4q rtn, GB/s | gguf, GB/s | ratio |")
    print("|---|---:|---:|---:|")
    for kind, weight_format in FORMATS.items():
        packed = Packed.empty(weight.shape, weight_format)
        ours, theirs = medians(
            partial(rtn.quantize_into, packed, weight, weight_format),
            partial(gguf.quants.quantize, weight.float().numpy(), gguf.GGMLQuantizationType[kind]),
        )
        speeds = [weight.nbytes / seconds / 1e9 for seconds in (ours, theirs)]
        ratio = theirs / ours
        print(f"| {kind}, groups of 32 | {speeds[0]:.2f} | {speeds[1]:.2f} | {ratio:.1f} |")


def medians(*runs: Callable[[], object]) -> list[float]:
    """Median seconds of each, run in turns."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, taken in zip(runs, seconds, strict=True):
            begun = time.perf_counter()
            run()
            taken.append(time.perf_counter() - begun)
    return [sorted(taken)[ROUNDS // 2] for taken in seconds]


def beside_llama(layers: int) -> None:
    """Layers of random weights, from file to file, in turns.

    The vocabulary is small, for the embedding is quantized by llama.cpp alone.
    """
    config = replace(PRESETS["glm-4-9b-chat"], num_hidden_layers=layers, vocab_size=1024)
    print(f"\n{layers} layers, from file to file, GB of bf16 read a second: medians (best)")
    print("| format | glm4q quantize --method rtn | llama_model_quantize | ratio |")
    print("|---|---:|---:|---:|")
    BUILD.mkdir(exist_ok=True)  # not in memory, as /tmp may be
    with tempfile.TemporaryDirectory(dir=BUILD) as temporary:
        source, file = Path(temporary) / "source", Path(temporary) / "source.gguf"
        source.mkdir()
        write_random(config, source)
        write_tokenizer(source / "tokenizer.json")
        write_bf16_gguf(StoredModel.open(source), file)
        size = (source / "model.safetensors").stat().st_size
        for kind, weights_format in {"Q4_0": "int4", "Q8_0": "int8"}.items():
            seconds = in_turns(
                partial(by_glm4q, source, weights_format), partial(by_llama, file, kind)
            )
            cells = [
                f"{size / statistics.median(each) / 1e9:.2f} ({size / min(each) / 1e9:.2f})"
                for each in seconds
            ]
            ratio = statistics.median(seconds[1]) / statistics.median(seconds[0])
            print(f"| {kind}, groups of 32 | {cells[0]} | {cells[1]} | {ratio:.2f} |")


def in_turns(*runs: Callable[[], float]) -> list[list[float]]:
    """The seconds that each says it took."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, taken in zip(runs, seconds, strict=True):
            taken.append(run())
    return seconds


def by_glm4q(source: Path, weights_format: str) -> float:
    """The pipeline in a process of its own, by its own account: with clip search and SHA-256."""
    output = source.with_name("made")
    command = [*GLM4Q, "quantize", str(source), "-o", str(output), "--weights", weights_format]
    command += ["--method", "rtn", "--group-size", "32", "--no-quality"]
    subprocess.run(command, check=True, capture_output=True)
    seconds = json.loads((output / JSON_NAME).read_text())["run"]["seconds"]
    shutil.rmtree(output)
    return float(seconds)


def by_llama(file: Path, kind: str) -> float:
    """Until the file is on the disk, as ours is; it is not summed, as ours is."""
    output = file.with_name("made.gguf")
    numbers = kind, str(torch.get_num_threads())
    found = ask([*worker("built"), "quantize", str(file), str(output), *numbers])
    begun = time.perf_counter()
    with output.open("r+b") as written:
        os.fsync(written.fileno())
    seconds = float(found["seconds"]) + time.perf_counter() - begun
    output.unlink()
    return seconds


def write_bf16_gguf(stored: StoredModel, file: Path) -> None:
    """Write the unquantized weights under the names of `glm4q export`, a tensor at a time."""
    writer = gguf.GGUFWriter(file, ARCHITECTURES[stored.config.model_type])
    add_metadata(writer, stored, 16)
    dense = gguf.GGMLQuantizationType.BF16
    for weight in weights(stored.config):
        numbers = read_weight(stored, weight)
        if numbers.dim() == 1:
            writer.add_tensor(gguf_name(weight), numbers.float().numpy())
        else:
            raw = numbers.contiguous().view(torch.uint8).numpy()
            writer.add_tensor(gguf_name(weight), raw, raw_dtype=dense)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def one_layer(samples: int, device: torch.device) -> None:
    """GPTQ of a layer of random weights on random states: as long as of a trained one."""
    config = replace(PRESETS["glm-4-9b-chat"], num_hidden_layers=1, vocab_size=1024)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary)
        write_random(config, source)
        stored = StoredModel.open(source)
        walk = CalibrationWalk(
            stored,
            torch.randint(1024, (samples, LENGTH)),
            source,
            method="gptq",
            device=device,
            dtype=choose_dtype("auto", device),
            batch=4,
        )
        walk.begin()
        weight_format = WeightFormat(4, 128)
        linears = [each for each in weights(config) if each.role == "linear"]
        names = [each.module.removeprefix("model.layers.0.") for each in linears]
        with clocked() as clock:
            walk.quantize_layer(0, dict.fromkeys(names, weight_format))
    seconds, cpu_seconds = clock.whole()
    layers = PRESETS["glm-4-9b-chat"].num_hidden_layers
    print(
        f"GPTQ, INT4 g128, {samples} samples of {LENGTH} tokens: {seconds:.0f} s for a layer "
        f"on {device} ({cpu_seconds:.0f} s of {torch.get_num_threads()} CPUs), so "
        f"{seconds * layers / 3600:.1f} hours for the {layers} layers of GLM-4-9B-Chat"
    )
    print(clock.table())


def write_random(config: ModelConfig, directory: Path) -> None:
    """A bf16 checkpoint of small random numbers, a tensor at a time."""
    tensors = [PlannedTensor(each.name, "BF16", each.shape) for each in weights(config)]
    with (directory / "model.safetensors").open("wb") as file:
        file.write(header(tensors))
        for tensor in tensors:
            rows = torch.randn(tensor.shape).mul_(0.02)
            if "norm" in tensor.name:
                rows += 1
            file.write(rows.bfloat16().view(torch.uint8).numpy().data)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--without-gptq", action="store_true")
    parser.add_argument("--without-llama", action="store_true")
    parser.add_argument("--without-rounding", action="store_true")
    parser.add_argument("--isa", help="of no newer instruction set than this one (avx2)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="of GPTQ")
    options = parser.parse_args()
    if options.isa:
        limit_to(options.isa)
    if not options.without_rounding:
        rounding()
    if not options.without_llama:
        beside_llama(options.layers)
    if not options.without_gptq:
        one_layer(options.samples, options.device)
    print(describe_machine("gguf"))


if __name__ == "__main__":
    main()
