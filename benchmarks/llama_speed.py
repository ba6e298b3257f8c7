"""glm4q beside llama.cpp: prefill, decode and load time, in turns on one machine.

    python -m benchmarks.llama_speed [--cases demo glm-int4 glm-int8] [--depths 0] [--rounds 3]
        [--peer built] [--isa avx2]
    python -m benchmarks.llama_speed --peer cuda [--cases glm-int4] [--depths 0,4096]

glm-int4 and glm-int8 are GLM-4-9B's true shapes with random integers, which take about 13 and 21
GB of disk together with their GGUF files and are kept under build/peers/models; demo is the trained
demo model. The GGUF files are `glm4q export`'s, so both programs multiply by the same integers.
With the peer "cuda" both compute on the GPU, and both caches hold 16 bits a number.
"""

import argparse
import json
import os
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import gguf
import torch

from benchmarks.fused_qkv import fuse_qkv
from benchmarks.machine import GLM4Q, LIMITED, ask, describe_machine
from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import WeightFormat
from calculator.model.presets import PRESETS
from calculator.questions.subject import Variant
from glm4q.measure.report import machine_name
from glm4q.measure.synthetic import open_synthetic
from quantize.demo_model import write_demo_model
from quantize.export.gguf import export_gguf
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe

MODELS = Path("build/peers/models")
PEERS = {
    "built": ("build/peers/llama/bin/python", "llama_worker.py"),
    "avx2": ("build/peers/llama-avx2/bin/python", "llama_worker.py"),
    "avx-vnni": ("build/peers/llama-avx-vnni/bin/python", "llama_worker.py"),
    "cuda": ("build/peers/llama-cuda/bin/python", "llama_worker.py"),
    "wheel": ("build/peers/xllamacpp/bin/python", "xllamacpp_worker.py"),
    "ik": ("build/peers/ik/bin/python", "ik_worker.py"),
    "ik-repacked": ("build/peers/ik/bin/python", "ik_worker.py"),
}
"""llama.cpp compiled for this very machine, for AVX2, for AVX-VNNI too, for a GPU, and as a wheel
for any machine; and ik_llama.cpp's wheel, with weights as the file has them or rearranged as it
loads."""
CARD = "cuda"
"""The peer that computes on a GPU; glm4q does beside it."""
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
CASES = {
    "demo": None,
    "glm-int4": Variant("int4", "128", "int8"),
    "glm-int8": Variant("int8", "128", "int8"),
}
"""The variants that are exported to GGUF: Q4_0 or Q8_0 linears; our INT8 head becomes Q8_0."""
PROMPT, DECODE = 512, 32
F16_BYTES = 2


def worker(peer: str) -> list[str]:
    """The command that starts a peer's worker."""
    python, file = PEERS[peer]
    return [python, str(Path(__file__).with_name(file))]


@dataclass(frozen=True)
class Measurement:
    """What each process is asked."""

    depths: str
    runs: int
    cpu_time: bool
    """One thread's CPU time, not the time of all threads on the wall's clock."""
    peer: str
    isa: str | None
    """The newest instruction set that glm4q may use."""

    @property
    def on_card(self) -> bool:
        return self.peer == CARD


@dataclass(frozen=True)
class Times:
    """Seconds that one process took, a number for each depth."""

    load: float
    prefill: list[float]
    decode: list[float]

    @classmethod
    def of_glm4q(cls, directory: Path, how: Measurement) -> tuple[Self, dict[str, Any]]:
        if how.cpu_time:
            command = [sys.executable, "-m", "benchmarks.cpu_time", str(directory), how.depths]
            command += [str(PROMPT), str(DECODE), str(how.runs)]
            found = ask(command if how.isa is None else [*command, how.isa])
        else:
            command = GLM4Q if how.isa is None else [*LIMITED, how.isa]
            command = [*command, "bench", str(directory), "--json"]
            command += ["--device", CARD, "--kv", "bf16"] if how.on_card else ["--device", "cpu"]
            command += ["--depths", how.depths, "--runs", str(how.runs)]
            found = ask([*command, "--prompt", str(PROMPT), "--decode", str(DECODE)])
        prefill = [PROMPT / speed for speed in found["prefill_tokens_per_second"]]
        decode = [1 / speed for speed in found["decode_tokens_per_second"]]
        return cls(found["load_seconds"], prefill, decode), found

    @classmethod
    def of_llama(cls, file: Path, how: Measurement) -> tuple[Self, dict[str, Any]]:
        threads = 1 if how.cpu_time else torch.get_num_threads()
        numbers = map(str, (PROMPT, DECODE, how.runs, threads))
        command = "cpu-time" if how.cpu_time else "card" if how.on_card else "run"
        command = command + "-repacked" if how.peer == "ik-repacked" else command
        found = ask([*worker(how.peer), command, str(file), how.depths, *numbers])
        prefill, decode = (
            [statistics.median(each) for each in found[f"{phase}_seconds"]]
            for phase in ("prefill", "decode")
        )
        return cls(found["load_seconds"], prefill, decode), found


def prepare(case: str, layers: int | None) -> tuple[Path, Path]:
    """The checkpoint and its GGUF file; made if they are not there."""
    variant, config = CASES[case], PRESETS["glm-4-9b-chat"]
    directory = MODELS / case
    if variant is None and not directory.exists():
        if not (source := MODELS / "demo-bf16").exists():
            write_demo_model(source)
        quantize_checkpoint(StoredModel.open(source), directory, Recipe(WeightFormat(4, 64)))
    if variant is not None:
        if layers is not None:
            directory = directory.with_name(f"{case}-{layers}-layers")
            config = replace(config, num_hidden_layers=layers)
        open_synthetic(directory, config, variant.formats(config))
        write_tokenizer(directory / "tokenizer.json")
    file = directory.with_suffix(".gguf")
    if not file.exists():
        export_gguf(StoredModel.open(directory), file)
    return directory, file


def fused(file: Path) -> Path:
    """The same file with one tensor of queries, keys and values; made if it is not there."""
    target = file.with_suffix(".fused.gguf")
    if not target.exists():
        fuse_qkv(file, target)
    return target


def write_tokenizer(path: Path) -> None:
    """The least that a GGUF file of random weights needs: its words are never read."""
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ċ": 3}, "merges": ["a b"]}
    digits = {"type": "Digits", "individual_digits": False}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    split = {"type": "Sequence", "pretokenizers": [digits, bytes_]}
    path.write_text(json.dumps({"model": model, "pre_tokenizer": split, "added_tokens": []}))


def read_bytes(file: Path, depths: list[int]) -> list[int]:
    """What llama.cpp reads for a token: all but the embedding, and its float16 cache."""
    reader = gguf.GGUFReader(file)
    sizes = {tensor.name: tensor.n_bytes for tensor in reader.tensors}
    embedding = sizes["token_embd.weight"] if "output.weight" in sizes else 0
    arch = reader.fields["general.architecture"].contents()
    layers, heads, size = (
        int(reader.fields[f"{arch}.{name}"].contents())
        for name in ("block_count", "attention.head_count_kv", "attention.key_length")
    )
    cached = 2 * layers * heads * size * F16_BYTES
    return [sum(sizes.values()) - embedding + cached * depth for depth in depths]


def compare(case: str, options: argparse.Namespace) -> None:
    directory, file = prepare(case, options.layers)
    if options.peer.startswith("ik"):
        file = fused(file)
    how = Measurement(options.depths, options.runs, options.cpu_time, options.peer, options.isa)
    mine, theirs = [], []
    for _ in range(options.rounds):
        times, found = Times.of_glm4q(directory, how)
        mine.append(times)
        times, told = Times.of_llama(file, how)
        theirs.append(times)
    print(f"\n{case}: kernels {kernels(found)}; {told['version']}: {told['system']}")
    print(f"| | glm4q, median (best) | {options.peer}, median (best) | ratio of medians |")
    print("|---|---:|---:|---:|")
    row("load, s", 0, [each.load for each in mine], [each.load for each in theirs])
    read = read_bytes(file, found["depths"])
    for place, depth in enumerate(found["depths"]):
        for phase, tokens in (("prefill", PROMPT), ("decode", 1)):
            seconds = [[getattr(each, phase)[place] for each in side] for side in (mine, theirs)]
            row(f"{phase} at {depth:,}, tokens/s", tokens, *seconds)
        own = found["decode_bytes_per_token"][place]
        print(f"| a token at {depth:,} reads, MB | {own / 1e6:,.0f} "
              f"| {read[place] / 1e6:,.0f} | |")  # fmt: skip
    if not options.cpu_time:
        print(f"memory read at {found['read_bandwidth_bytes_per_second'] / 1e9:.1f} GB/s")


def row(name: str, tokens: int, mine: list[float], theirs: list[float]) -> None:
    """Tokens a second, or seconds where there are no tokens; above 1 glm4q is the faster."""
    cells = [
        f"{shown(statistics.median(each), tokens)} ({shown(min(each), tokens)})"
        for each in (mine, theirs)
    ]
    ratio = statistics.median(theirs) / statistics.median(mine)
    print(f"| {name} | {cells[0]} | {cells[1]} | {ratio:.2f} |")


def shown(seconds: float, tokens: int) -> str:
    return f"{tokens / seconds if tokens else seconds:.2f}"


def kernels(found: dict[str, Any]) -> str:
    return ", ".join(sorted({each["kernel"] for each in found["kernels"]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--peer", choices=PEERS, default="built")
    parser.add_argument("--isa", help="the newest instruction set for glm4q: avx2, avx_vnni ...")
    parser.add_argument("--depths", default="0")
    parser.add_argument("--layers", type=int, help="of the GLM-4-9B cases; all if not given")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each, in turns")
    parser.add_argument("--runs", type=int, default=1, help="in each process")
    parser.add_argument(
        "--cpu-time", action="store_true", help="of one thread, where others use the machine"
    )
    options = parser.parse_args()
    if options.cpu_time and options.peer == CARD:
        parser.error("--cpu-time is a CPU's, and --peer cuda computes on a GPU")
    if options.isa is not None:
        os.environ.update(AVX2)  # for torch, in glm4q's processes
    for case in options.cases:
        compare(case, options)
    if options.peer == CARD:
        print(machine_name(torch.device(CARD)))
    print(describe_machine())


if __name__ == "__main__":
    main()
