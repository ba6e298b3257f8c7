"""`glm4q serve` beside llama.cpp's server: the same integers, threads, prompts and clients.

    python -m benchmarks.server.beside_llama CHECKPOINT [--clients 8] [--seconds 30] [--rounds 3]

The GGUF file is `glm4q export`'s and is made beside the checkpoint; both servers keep keys and
values in 16 bits, and are started in turns. Prompts come as token ids, so that no template differs.
Above 1 glm4q is the faster.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from benchmarks.machine import describe_machine
from benchmarks.server.clients import Seen, load, percentile
from benchmarks.server.running import NAME, serve
from calculator.checkpoint.stored import StoredModel
from glm4q.text.tokenizer import Tokenizer
from quantize.export.gguf import export_gguf

PYTHON = Path("build/peers/xllamacpp/bin/python")
COMPLETIONS = "/v1/completions"
CONTEXT, TOKENS = 1024, 64
QUESTIONS = [
    f"Tell me something about the number {number}, and what it is used for." for number in range(16)
]
Figures = dict[str, float]
"""What one round of one server gave, by the name of the figure."""


@contextmanager
def serve_llama(file: Path, rows: int, threads: int) -> Iterator[str]:
    """Serve a GGUF file by llama.cpp, and yield the URL."""
    command = [str(PYTHON), str(Path(__file__).with_name("xllamacpp_server.py")), str(file)]
    command += [str(rows), str(CONTEXT), str(threads)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            address = process.stdout.readline().strip()
            if not address:
                sys.exit("llama.cpp's server did not start; make build/peers/xllamacpp first")
            yield address if address.startswith("http") else f"http://{address}"
        finally:
            process.stdin.close()
            process.wait(60)


def serve_glm4q(directory: Path, rows: int) -> AbstractContextManager[str]:
    """Serve a checkpoint by glm4q with a cache as llama.cpp has it."""
    options = ("--parallel", str(rows), "--context", str(CONTEXT), "--kv", "bf16")
    return serve(directory, *options, "--device", "cpu", "--no-loop-guard")


def bodies_for(directory: Path) -> list[dict[str, object]]:
    """The prompts as the demo model's template writes them."""
    tokenizer = Tokenizer.from_directory(directory)
    return [
        {
            "model": NAME,
            "prompt": tokenizer.encode_prompt(
                f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            ),
            "max_tokens": TOKENS,
            "temperature": 0,
        }
        for question in QUESTIONS
    ]


def measure(url: str, bodies: list[dict[str, object]], options: argparse.Namespace) -> Figures:
    """Put a server under load, and keep how fast it was."""
    asyncio.run(load(url, COMPLETIONS, bodies, clients=options.clients, seconds=1))  # warm
    answers, took = asyncio.run(
        load(url, COMPLETIONS, bodies, clients=options.clients, seconds=options.seconds)
    )
    seen: list[Seen] = [each for _, each in answers]
    firsts = [each.to_first for each in seen]
    between = [gap for each in seen for gap in each.between]
    return {
        "tokens/s": sum(each.tokens for each in seen) / took,
        "first text, ms, median": 1000 * percentile(firsts, 50),
        "first text, ms, 95 %": 1000 * percentile(firsts, 95),
        "between texts, ms, median": 1000 * percentile(between, 50),
        "between texts, ms, 95 %": 1000 * percentile(between, 95),
    }


def show(mine: list[Figures], theirs: list[Figures], clients: int) -> None:
    print(f"| {clients} clients | glm4q | llama.cpp | ratio |")
    print("|---|---:|---:|---:|")
    for name in mine[0]:
        own, other = (statistics.median(each[name] for each in side) for side in (mine, theirs))
        ratio = own / other if name == "tokens/s" else other / own
        print(f"| {name} | {own:.1f} | {other:.1f} | {ratio:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30, help="of each load")
    parser.add_argument("--rounds", type=int, default=3, help="of each server, in turns")
    options = parser.parse_args()
    file = options.checkpoint.with_suffix(".gguf")
    if not file.exists():
        export_gguf(StoredModel.open(options.checkpoint), file)
    bodies, threads = bodies_for(options.checkpoint), torch.get_num_threads()
    mine, theirs = [], []
    for _ in range(options.rounds):
        with serve_glm4q(options.checkpoint, options.clients) as url:
            mine.append(measure(url, bodies, options))
        with serve_llama(file, options.clients, threads) as url:
            theirs.append(measure(url, bodies, options))
    show(mine, theirs, options.clients)
    print(describe_machine("uvicorn", "starlette"))


if __name__ == "__main__":
    main()
