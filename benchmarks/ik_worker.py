"""ik_llama.cpp by its C API, in a process of its own: `llama_speed.py` asks it.

    python ik_worker.py run FILE 0 PROMPT DECODE RUNS THREADS
    python ik_worker.py cpu-time FILE 0 PROMPT DECODE RUNS 1

With "-repacked" behind the first word it rearranges the weights while it loads.
It runs where ik-llama-cpp-python is installed and this project is not; it answers in JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from ik_llama_cpp import _ctypes_api as api
from ik_llama_cpp._internals import make_batch_range

TOKEN = 1
UBATCH = 512
CLOCKS = {"run": time.perf_counter, "cpu-time": time.process_time}
Clock = Callable[[], float]


def seconds(clock: Clock, context: Any, vocabulary: int, steps: list[int]) -> float:
    """Run steps of so many tokens after an empty cache, choosing a token after each."""
    api.llama_kv_cache_clear(context)
    begun, place = clock(), 0
    for tokens in steps:
        batch = make_batch_range([TOKEN] * tokens, pos_start=place)
        if failed := api.llama_decode(context, batch):
            sys.exit(f"llama_decode returned {failed}")
        api.llama_batch_free(batch)
        logits = api.llama_get_logits_ith(context, tokens - 1)
        np.ctypeslib.as_array(logits, (vocabulary,)).argmax()
        place += tokens
    return clock() - begun


def run(
    clock: Clock, repack: bool, file: str, prompt: int, decode: int, runs: int, threads: int
) -> Any:
    """Seconds of loading, and of every prompt and token."""
    begun = clock()
    params = api.llama_model_default_params()
    params.repack_tensors = repack
    if repack:
        params.use_mmap = False  # tensors are rearranged where they lie
    model = api.llama_model_load_from_file(file.encode(), params)
    if not model:
        sys.exit(f"ik_llama.cpp does not load {file}")
    settings = api.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch = prompt + decode + 1, UBATCH, UBATCH
    settings.n_threads = settings.n_threads_batch = threads
    settings.flash_attn = False  # as the wheel chooses without AVX-VNNI
    context = api.llama_init_from_model(model, settings)
    loaded = clock() - begun
    vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    return {
        "load_seconds": loaded,
        "prefill_seconds": [[seconds(clock, context, vocabulary, [prompt]) for _ in range(runs)]],
        "decode_seconds": [
            [seconds(clock, context, vocabulary, [1] * decode) / decode for _ in range(runs)]
        ],
        "system": "AVX2 code alone, by its disassembly" + (", repacked" if repack else ""),
        "version": f"ik-llama-cpp-python {version('ik-llama-cpp-python')}",
    }


def main(command: str, file: str, depths: str, *numbers: str) -> None:
    clock = command.removesuffix("-repacked")
    if clock not in CLOCKS or depths != "0":
        sys.exit("it measures at depth 0 only")
    spoken = os.dup(1)
    os.dup2(2, 1)  # what the library prints goes elsewhere than the answer
    api.llama_backend_init()
    found = run(CLOCKS[clock], command != clock, file, *map(int, numbers))
    os.write(spoken, (json.dumps(found) + "\n").encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
