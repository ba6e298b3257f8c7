"""llama.cpp as its users' wheel brings it, in a process of its own: `llama_speed.py` asks it.

    python xllamacpp_worker.py run FILE 0 PROMPT DECODE RUNS THREADS

It runs where xllamacpp is installed and this project is not; it answers in JSON. The wheel offers
llama.cpp's server alone, so times are those that the server tells, and there is no depth but 0.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from typing import Any

import xllamacpp

TOKEN = 1


def answer(server: Any, prompt: int, tokens: int) -> dict[str, float]:
    """What the server tells of a prompt of so many tokens and as long an answer as asked for."""
    question = {
        "prompt": [TOKEN] * prompt,
        "max_tokens": tokens,
        "top_k": 1,
        "samplers": ["top_k"],
        "ignore_eos": True,
        "cache_prompt": False,
    }
    return dict(server.handle_completions(question)["timings"])


def run(file: str, prompt: int, decode: int, runs: int, threads: int) -> Any:
    """Seconds of loading, and of every prompt and token."""
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = file, prompt + decode + 8, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    begun = time.perf_counter()
    server = xllamacpp.Server(params)
    loaded = time.perf_counter() - begun
    prefills = [answer(server, prompt, 1)["prompt_ms"] / 1e3 for _ in range(runs)]
    told = [answer(server, 1, decode) for _ in range(runs)]
    return {
        "load_seconds": loaded,
        "prefill_seconds": [prefills],
        "decode_seconds": [[each["predicted_per_token_ms"] / 1e3 for each in told]],
        "system": xllamacpp.get_system_info(),
        "version": f"xllamacpp {version('xllamacpp')}",
    }


def main(command: str, file: str, depths: str, *numbers: str) -> None:
    if (command, depths) != ("run", "0"):
        sys.exit("the wheel's server measures the time of all threads, at depth 0 only")
    spoken = os.dup(1)
    os.dup2(2, 1)  # what llama.cpp prints goes elsewhere than the answer
    made = run(file, *map(int, numbers))
    os.write(spoken, (json.dumps(made) + "\n").encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
