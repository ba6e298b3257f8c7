"""What INT4 costs the demo model: rounding to nearest, our GPTQ, and GPTQModel on the same samples.

Symmetric, groups of 64. The texts are Python's own documentation topics, which come with every
Python: every second one calibrates, the others are held out. `--rotated` takes the same model with
its residual stream turned by a random orthogonal matrix, so that no weight lies on the grid that
the demo model was once stored on.

    python benchmarks/gptq_quality.py [--rotated] [--samples 32] [--without-peer]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from quantize.calibrate.samples import read_calibration
from quantize.demo_model import write_demo_model

LENGTH = 512
HELD_OUT_LETTERS = 40_000
GLM4Q = [sys.executable, "-c", "import sys; from glm4q.cli import main; sys.exit(main())"]
PEER = """
import json, sys
from gptqmodel import GPTQModel, QuantizeConfig
source, output, samples = json.load(sys.stdin)
model = GPTQModel.load(source, QuantizeConfig(bits=4, group_size=64), dtype="float32")
rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in samples]
model.quantize(rows, batch_size=4)
model.save(output)
with open("/proc/self/status") as status, open(output + "/peak", "w") as file:
    file.write(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


def write_texts(directory: Path) -> None:
    """calibration.txt and held-out.txt."""
    names = sorted(topics)
    (directory / "calibration.txt").write_text("\n".join(topics[name] for name in names[::2]))
    held_out = "\n".join(topics[name] for name in names[1::2])
    (directory / "held-out.txt").write_text(held_out[:HELD_OUT_LETTERS])


def rotate(source: Path) -> None:
    """Turn the residual stream in place: norms go into the linears that read them, then all that
    write to the stream are multiplied by an orthogonal matrix, and all that read, by its inverse.
    """
    tensors = {
        name: each.double() for name, each in load_file(source / "model.safetensors").items()
    }
    embedding = tensors["model.embed_tokens.weight"]
    width = embedding.shape[1]
    turn, _ = torch.linalg.qr(
        torch.randn(width, width, generator=torch.Generator().manual_seed(0)).double()
    )
    made = {"lm_head.weight": embedding * tensors["model.norm.weight"] @ turn}
    for name, weight in tensors.items():
        layer, _, inner = (
            name.partition(".self_attn.") if ".self_attn." in name else name.partition(".mlp.")
        )
        if name == "model.embed_tokens.weight":
            made[name] = weight @ turn
        elif "norm" in name:
            made[name] = torch.ones_like(weight)
        elif "o_proj" in inner or "down_proj" in inner:
            made[name] = turn.T @ weight
        else:
            norm = "input_layernorm" if "self_attn" in name else "post_attention_layernorm"
            made[name] = weight * tensors[f"{layer}.{norm}.weight"] @ turn
    save_file(
        {name: weight.float().contiguous() for name, weight in made.items()},
        source / "model.safetensors",
        metadata={"format": "pt"},
    )
    path = source / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "tie_word_embeddings": False, "dtype": "float32"}))


def run(command: list[str], told: str = "", directory: Path | None = None) -> float:
    """CPU seconds of a process that has to succeed: other programs may use the machine as well."""
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1", "GPTQMODEL_CPU_WORKERS": "3"}
    begun = cpu_seconds()
    with tempfile.TemporaryFile("w+") as asked, tempfile.TemporaryFile("w+") as log:
        asked.write(told)
        asked.seek(0)
        ran = subprocess.run(
            command, stdin=asked, stdout=log, stderr=log, env=environment, cwd=directory
        )
        if ran.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(command)[:200]} failed:\n{log.read()[-2000:]}")
    return cpu_seconds() - begun


def cpu_seconds() -> float:
    """CPU seconds of all processes that this one has waited for."""
    times = os.times()
    return times.children_user + times.children_system


def quantize_by_peer(source: Path, output: Path, token_ids: Tensor) -> float:
    """Quantize by GPTQModel with these samples, [samples, T], in a process of its own.

    Returns the CPU seconds that it took. Its logs are left beside `output`.
    """
    told = [str(source), str(output), token_ids.tolist()]
    return run([sys.executable, "-c", PEER], json.dumps(told), output.parent)


def peak_mib(output: Path) -> int:
    """The most memory that the process which made it held, by its own account."""
    if (output / "peak").is_file():
        return int((output / "peak").read_text()) >> 10
    return json.loads((output / "quality.json").read_text())["run"]["peak_bytes"] >> 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rotated", action="store_true")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--without-peer", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        source, text = directory / "source", directory / "calibration.txt"
        write_demo_model(source)
        write_texts(directory)
        if options.rotated:
            rotate(source)
        asked = ["--group-size", "64", "--no-quality"]
        gptq = ["--weights", "int4", "--calibration", str(text)]
        all_samples = [*gptq, "--samples", str(options.samples)]
        quarter = options.samples // 4
        costs = {}
        for name, extra in {
            "glm4q, int8, rtn": ["--weights", "int8", "--method", "rtn"],
            "glm4q, rtn": ["--weights", "int4", "--method", "rtn"],
            "glm4q, gptq, fp32": [*all_samples, "--dtype", "fp32"],
            "glm4q, gptq, bf16": [*all_samples, "--dtype", "bf16"],
            f"glm4q, gptq, bf16, {quarter} samples": [
                *gptq,
                "--samples",
                str(quarter),
                "--dtype",
                "bf16",
            ],
        }.items():
            output = directory / name
            command = [*GLM4Q, "quantize", str(source), "-o", str(output), *asked, *extra]
            costs[name] = run(command)
        if not options.without_peer:
            stored = StoredModel.open(source)
            shown = read_calibration(text, stored, samples=options.samples, length=LENGTH)
            output = directory / "GPTQModel, fp32"
            costs[output.name] = quantize_by_peer(source, output, shown.token_ids)
        report(directory, source, costs)


def report(directory: Path, source: Path, costs: dict[str, float]) -> None:
    command = [*GLM4Q, "eval", *(str(directory / name) for name in costs), "--against", str(source)]
    command += ["--text", str(directory / "held-out.txt"), "--dtype", "fp32", "--json"]
    command += ["--kernel", "reference"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    base = found[0]["perplexity"]
    print(f"source: perplexity {base:.3f} on {found[0]['tokens']:,} tokens")
    print("| | perplexity | over source | KL, nats | same token | CPU seconds | peak MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, each in zip(costs, found[1:], strict=True):
        divergence = each["divergence"]
        print(
            f"| {name} | {each['perplexity']:.3f} | {each['perplexity'] / base - 1:+.2%} | "
            f"{divergence['kl_divergence']:.4f} | {divergence['top_1_agreement']:.1%} | "
            f"{costs[name]:.0f} | {peak_mib(directory / name)} |"
        )


if __name__ == "__main__":
    main()
