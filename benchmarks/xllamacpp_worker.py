"""llama.cpp as its users' wheel brings it, in a process of its own: `llama_speed.py` asks it.

    python xllamacpp_worker.py run FILE DEPTHS PROMPT DECODE RUNS THREADS
    python xllamacpp_worker.py together-run FILE COUNTS TOKENS ROUNDS THREADS

It runs where xllamacpp is installed and this project is not; it answers in JSON. The wheel offers
llama.cpp's server alone, so times are those that the server tells. Its cache is filled by reading a
prompt, which takes minutes for 32,768 tokens.
"""

import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import xllamacpp

TOKEN = 1


class Server:
    """llama.cpp's server, and how many tokens of its cache later questions share."""

    def __init__(self, file: str, room: int, answers: int, threads: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel = file, room, answers
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        self._server = xllamacpp.Server(params)
        self._asked = TOKEN  # what ends the newest prompt: a prompt that is new is read again

    def ask(self, depth: int, prompt: int, tokens: int) -> dict[str, float]:
        """What it tells of `prompt` tokens behind `depth`, and of an answer of `tokens`."""
        self._asked += 1
        question = {
            "prompt": [TOKEN] * depth + [self._asked] * prompt,
            "max_tokens": tokens,
            "top_k": 1,
            "samplers": ["top_k"],
            "ignore_eos": True,
            "cache_prompt": depth > 0,
        }
        told = dict(self._server.handle_completions(question)["timings"])
        if depth and told["prompt_n"] != prompt:
            sys.exit(f"the server read {told['prompt_n']} tokens behind {depth}, not {prompt}")
        return told

    def fill(self, depth: int) -> None:
        """Let it read `depth` tokens."""
        question = {"prompt": [TOKEN] * depth, "max_tokens": 1, "cache_prompt": True}
        if depth:
            self._server.handle_completions(question)


def run(file: str, depths: list[int], prompt: int, decode: int, runs: int, threads: int) -> Any:
    """Seconds of loading, and of every prompt and token at each depth."""
    begun = time.perf_counter()
    server = Server(file, max(depths) + prompt + decode + 8, 1, threads)
    loaded = time.perf_counter() - begun
    prefills, decodes = [], []
    for depth in depths:
        server.fill(depth)
        read = [server.ask(depth, prompt, 1)["prompt_ms"] for _ in range(runs)]
        told = [server.ask(depth, 1, decode)["predicted_per_token_ms"] for _ in range(runs)]
        prefills.append([each / 1e3 for each in read])
        decodes.append([each / 1e3 for each in told])
    return {
        "load_seconds": loaded,
        "prefill_seconds": prefills,
        "decode_seconds": decodes,
        "system": xllamacpp.get_system_info(),
        "version": f"xllamacpp {version('xllamacpp')}",
    }


def run_together(
    file: str, counts: list[int], tokens: int, rounds: int, threads: int
) -> list[float]:
    """Seconds of a step that decodes so many answers, by count."""
    medians = []
    for count in counts:
        server = Server(file, count * (tokens + 8), count, threads)
        with ThreadPoolExecutor(count) as clients:
            times = []
            for _ in range(rounds):
                asked = [clients.submit(server.ask, 0, 1, tokens) for _ in range(count)]
                told = [each.result()["predicted_per_token_ms"] / 1e3 for each in asked]
                times.append(statistics.median(told))
        medians.append(statistics.median(times))
    return medians


def main(command: str, file: str, depths: str, *numbers: str) -> None:
    if command not in ("run", "together-run"):
        sys.exit("the wheel's server measures the time of all threads only")
    spoken = os.dup(1)
    os.dup2(2, 1)  # what llama.cpp prints goes elsewhere than the answer
    measure = run if command == "run" else run_together
    answer = measure(file, [int(each) for each in depths.split(",")], *map(int, numbers))
    os.write(spoken, (json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
