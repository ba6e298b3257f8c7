"""llama.cpp by its C API, in a process of its own: `llama_speed.py` and `quantize_speed.py` ask it.

    python llama_worker.py run FILE DEPTHS PROMPT DECODE RUNS THREADS
    python llama_worker.py card FILE DEPTHS PROMPT DECODE RUNS THREADS
    python llama_worker.py cpu-time FILE DEPTHS PROMPT DECODE RUNS 1
    python llama_worker.py quantize FILE OUTPUT TYPE THREADS

"card" computes all layers on a GPU, with FlashAttention and llama.cpp's usual cache in float16.
It runs where llama-cpp-python is installed and this project is not; it answers in JSON.
"""

import ctypes
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

TOKEN = 1
UBATCH = 512
"""Prompt tokens at once: llama.cpp's default, and our prefill chunk."""
ALL_LAYERS = -1
WARM_STEPS = 8
"""Steps of one token after which llama.cpp has recorded and replayed a step as a CUDA graph."""
CARD = "card"
CLOCKS = {"run": time.perf_counter, CARD: time.perf_counter, "cpu-time": time.process_time}
TYPES = {
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
}


@dataclass(frozen=True)
class Measurement:
    """Say what is measured, by which clock, and whether a GPU computes."""

    clock: Callable[[], float]
    on_card: bool
    depths: list[int]
    prompt: int
    decode: int
    runs: int
    threads: int


def run(file: str, how: Measurement) -> Any:
    """Seconds of loading, and of every prompt and token at each depth."""
    begun = how.clock()
    session = load(file, how)
    loaded = how.clock() - begun
    prefills, decodes = [], []
    for depth in how.depths:
        session.cut(session.length)
        session.feed(depth - session.length)  # llama.cpp's cache is filled by a prefill alone
        if how.on_card:
            session.seconds(depth, [how.prompt])
            session.seconds(depth, [1] * WARM_STEPS)
        prefills.append([session.seconds(depth, [how.prompt]) for _ in range(how.runs)])
        steps = [1] * how.decode
        decodes.append([session.seconds(depth, steps) / how.decode for _ in range(how.runs)])
        session.cut(depth)
    return {
        "load_seconds": loaded,
        "prefill_seconds": prefills,
        "decode_seconds": decodes,
        "system": llama_cpp.llama_print_system_info().decode(),
        "version": f"llama-cpp-python {llama_cpp.__version__}",
    }


def load(file: str, how: Measurement) -> "Session":
    """Load the model, and make room for what is measured."""
    settings = llama_cpp.llama_model_default_params()
    params = llama_cpp.llama_context_default_params()
    if how.on_card:
        if not llama_cpp.llama_supports_gpu_offload():  # it would silently compute on the CPU
            sys.exit("this llama.cpp finds no GPU")
        settings.n_gpu_layers = ALL_LAYERS
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    model = llama_cpp.llama_model_load_from_file(file.encode(), settings)
    params.n_ctx = max(how.depths) + max(how.prompt, how.decode) + 1
    params.n_batch = params.n_ubatch = UBATCH
    params.n_threads = params.n_threads_batch = how.threads
    context = llama_cpp.llama_init_from_model(model, params) if model else None
    if not context:
        sys.exit(f"llama.cpp cannot load {file}, or has no memory for {params.n_ctx:,} tokens")
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    return Session(context, vocabulary, how.clock)


class Session:
    """A context and how many tokens it holds."""

    def __init__(self, context: Any, vocabulary: int, clock: Callable[[], float]) -> None:
        self._context, self._vocabulary, self._clock = context, vocabulary, clock
        self._memory = llama_cpp.llama_get_memory(context)
        self.length = 0

    def cut(self, length: int) -> None:
        """Forget what follows."""
        llama_cpp.llama_memory_seq_rm(self._memory, 0, length, -1)
        self.length = length

    def feed(self, tokens: int) -> None:
        """Run tokens in, a batch at a time."""
        while tokens > 0:
            count = min(tokens, UBATCH)
            token_ids = (llama_cpp.llama_token * count)(*[TOKEN] * count)  # the batch points to it
            batch = llama_cpp.llama_batch_get_one(token_ids, count)
            if failed := llama_cpp.llama_decode(self._context, batch):
                sys.exit(f"llama_decode returned {failed}")
            self.length += count
            tokens -= count

    def seconds(self, depth: int, steps: list[int]) -> float:
        """Time steps of so many tokens after `depth`; each step chooses a token."""
        self.cut(depth)
        llama_cpp.llama_synchronize(self._context)  # a GPU may still be filling the cache
        begun = self._clock()
        for tokens in steps:
            self.feed(tokens)
            logits = llama_cpp.llama_get_logits_ith(self._context, -1)
            np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax()
        return self._clock() - begun


def quantize(file: str, output: str, kind: str, threads: int) -> Any:
    """Seconds of llama.cpp's own quantizer, from file to file."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.pure = threads, TYPES[kind], True
    begun = time.perf_counter()
    if failed := llama_cpp.llama_model_quantize(
        file.encode(), output.encode(), ctypes.byref(params)
    ):
        sys.exit(f"llama_model_quantize returned {failed}")
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "bytes": Path(output).stat().st_size}


def main(command: str, file: str, *rest: str) -> None:
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    if command in CLOCKS:
        depths = [int(each) for each in rest[0].split(",")]
        how = Measurement(CLOCKS[command], command == CARD, depths, *map(int, rest[1:]))
        answer = run(file, how)
    else:
        output, kind, threads = rest
        answer = quantize(file, output, kind, int(threads))
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
