"""glm4q beside transformers with GPTQModel, bitsandbytes NF4 and torchao, on the demo model.

    python -m benchmarks.transformers_speed [--rounds 3] [--peers gptqmodel nf4 torchao bf16]

Each is a process of its own, in turns: a prompt of 512 tokens, then 64 tokens by `generate`, as
users call it. GPTQModel loads the checkpoint that glm4q made; the others quantize as they load.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import GLM4Q, ask, describe_machine
from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import WeightFormat
from quantize.demo_model import write_demo_model
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe

MODELS = Path("build/peers/models")
SOURCE, INT4 = MODELS / "demo-bf16", MODELS / "demo"
PROMPT, DECODE = 512, 64
TOKEN = 1


def load_bf16() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(SOURCE, dtype=torch.bfloat16)


def load_gptqmodel() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(INT4, dtype=torch.bfloat16, device_map="cpu")


def load_nf4() -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    return AutoModelForCausalLM.from_pretrained(SOURCE, quantization_config=how, device_map="cpu")


def load_torchao() -> Any:
    """With its 4-bit layout for the CPU."""
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    from torchao.quantization import quantize_

    model = load_bf16()
    quantize_(model, PrototypeInt4WeightOnlyConfig(group_size=64))
    return model


PEERS: dict[str, Callable[[], Any]] = {
    "gptqmodel": load_gptqmodel,
    "nf4": load_nf4,
    "torchao": load_torchao,
    "bf16": load_bf16,
}


def work(peer: str) -> None:
    """Measure one peer, and print what was found as JSON."""
    begun = time.perf_counter()
    model = PEERS[peer]().eval()
    load = time.perf_counter() - begun
    ids = torch.full((1, PROMPT), TOKEN)
    generate(model, ids[:, :8], 2)  # what is built at first use
    first = generate(model, ids, 1)
    decode = (generate(model, ids[:, :1], DECODE + 1) - generate(model, ids[:, :1], 1)) / DECODE
    print(json.dumps({"load": load, "prefill": PROMPT / first, "decode": 1 / decode}))


@torch.inference_mode()
def generate(model: Any, ids: torch.Tensor, tokens: int) -> float:
    begun = time.perf_counter()
    model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return time.perf_counter() - begun


def of_glm4q() -> dict[str, float]:
    command = [*GLM4Q, "bench", str(INT4), "--json", "--device", "cpu", "--depths", "0"]
    found = ask([*command, "--prompt", str(PROMPT), "--decode", str(DECODE)])
    return {
        "load": found["load_seconds"],
        "prefill": found["prefill_tokens_per_second"][0],
        "decode": found["decode_tokens_per_second"][0],
    }


def compare(peers: list[str], rounds: int) -> None:
    runs: dict[str, list[dict[str, float]]] = {"glm4q": [], **{peer: [] for peer in peers}}
    script = [sys.executable, "-m", "benchmarks.transformers_speed", "--work"]
    for _ in range(rounds):
        for name, found in runs.items():
            found.append(of_glm4q() if name == "glm4q" else ask([*script, name]))
    print("| | load, s | prefill, tokens/s | decode, tokens/s | glm4q decodes faster by |")
    print("|---|---:|---:|---:|---:|")
    medians = {
        name: {what: statistics.median(each[what] for each in found) for what in found[0]}
        for name, found in runs.items()
    }
    for name, each in medians.items():
        ratio = medians["glm4q"]["decode"] / each["decode"]
        print(f"| {name} | {each['load']:.2f} | {each['prefill']:.0f} | {each['decode']:.1f} "
              f"| {ratio:.1f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", choices=PEERS, help="measure one alone, and answer in JSON")
    options = parser.parse_args()
    if options.work:
        return work(options.work)
    if not SOURCE.exists():
        write_demo_model(SOURCE)
    if not INT4.exists():
        quantize_checkpoint(StoredModel.open(SOURCE), INT4, Recipe(WeightFormat(4, 64)))
    compare(options.peers, options.rounds)
    print(describe_machine("transformers", "gptqmodel", "bitsandbytes", "torchao"))


if __name__ == "__main__":
    main()
