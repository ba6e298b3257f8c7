"""ik_llama.cpp by its C API, in a process of its own: `llama_speed.py` asks it.

    python ik_worker.py run FILE DEPTHS PROMPT DECODE RUNS THREADS
    python ik_worker.py cpu-time FILE DEPTHS PROMPT DECODE RUNS 1
    python ik_worker.py together-run FILE COUNTS TOKENS ROUNDS THREADS
    python ik_worker.py together-cpu-time FILE COUNTS TOKENS ROUNDS 1

"together" decodes so many sequences in a step. With "-repacked" behind the first word it rearranges
the weights while it loads.
It runs where ik-llama-cpp-python is installed and this project is not; it answers in JSON.
"""

import ctypes
import json
import os
import statistics
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
COPY = 1
"""The sequence that copies of a cache come by; sequence 0 is measured."""
NO_FLAGS = 0
library = api._lib


class Session:
    """A context whose cache is filled to some depth."""

    def __init__(self, context: Any, vocabulary: int, clock: Clock) -> None:
        self._context, self._vocabulary, self._clock = context, vocabulary, clock
        self.depth = 0
        self._state = ctypes.create_string_buffer(0)  # of the first UBATCH tokens

    def feed(self, tokens: int, place: int) -> None:
        """Run so many tokens, at most UBATCH, of the positions from `place` on."""
        batch = make_batch_range([TOKEN] * tokens, pos_start=place)
        if failed := api.llama_decode(self._context, batch):
            sys.exit(f"llama_decode returned {failed}")
        api.llama_batch_free(batch)

    def fill(self, depth: int) -> None:
        """Let the cache have `depth` tokens, a multiple of UBATCH: copies of the first UBATCH.

        The time of a step depends on their number alone, and reading 32,768 of them takes minutes.
        Copies keep their positions, all of which a later token sees.
        """
        if depth % UBATCH:
            sys.exit(f"a depth must be a multiple of {UBATCH}, not {depth}")
        library.llama_kv_cache_seq_rm(self._context, 0, self.depth, -1)
        if depth and not self.depth:
            self.feed(UBATCH, 0)
            self.depth = UBATCH
            size = library.llama_state_seq_get_size(self._context, 0, NO_FLAGS)
            self._state = ctypes.create_string_buffer(size)
            library.llama_state_seq_get_data(self._context, self._state, size, 0, NO_FLAGS)
        for _ in range(self.depth, depth, UBATCH):
            state = self._state, len(self._state)
            if not library.llama_state_seq_set_data(self._context, *state, COPY, NO_FLAGS):
                sys.exit("llama_state_seq_set_data has no room for the state")
            library.llama_kv_cache_seq_cp(self._context, COPY, 0, -1, -1)
            library.llama_kv_cache_seq_rm(self._context, COPY, -1, -1)
        self.depth = depth

    def seconds(self, steps: list[int]) -> float:
        """Time steps of so many tokens behind the filled cache; each step chooses a token."""
        library.llama_kv_cache_seq_rm(self._context, 0, self.depth, -1)
        begun, place = self._clock(), self.depth
        for tokens in steps:
            self.feed(tokens, place)
            logits = api.llama_get_logits_ith(self._context, tokens - 1)
            np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax()
            place += tokens
        return self._clock() - begun


def declare(name: str, arguments: list[Any], result: Any) -> None:
    """Functions of the library that the wheel's Python does not declare."""
    function = getattr(library, name)
    function.argtypes, function.restype = [ctypes.c_void_p, *arguments], result


def declare_all() -> None:
    sequence, place, size = ctypes.c_int32, ctypes.c_int32, ctypes.c_size_t
    declare("llama_kv_cache_seq_rm", [sequence, place, place], ctypes.c_bool)
    declare("llama_kv_cache_seq_cp", [sequence, sequence, place, place], None)
    declare("llama_state_seq_get_size", [sequence, ctypes.c_uint32], size)
    declare("llama_state_seq_get_data", [ctypes.c_char_p, size, sequence, ctypes.c_uint32], size)
    declare("llama_state_seq_set_data", [ctypes.c_char_p, size, sequence, ctypes.c_uint32], size)


def load(file: str, repack: bool, room: int, sequences: int, threads: int) -> tuple[Any, int]:
    """A context for so many tokens and sequences, and the size of its vocabulary."""
    params = api.llama_model_default_params()
    params.repack_tensors = repack
    if repack:
        params.use_mmap = False  # tensors are rearranged where they lie
    model = api.llama_model_load_from_file(file.encode(), params)
    if not model:
        sys.exit(f"ik_llama.cpp does not load {file}")
    settings = api.llama_context_default_params()
    settings.n_ctx, settings.n_seq_max = room, sequences
    settings.n_batch = settings.n_ubatch = UBATCH
    settings.n_threads = settings.n_threads_batch = threads
    settings.flash_attn = False  # as the wheel chooses without AVX-VNNI
    context = api.llama_init_from_model(model, settings)
    return context, api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))


def run(
    clock: Clock,
    repack: bool,
    file: str,
    depths: list[int],
    prompt: int,
    decode: int,
    runs: int,
    threads: int,
) -> Any:
    """Seconds of loading, and of every prompt and token at each depth."""
    begun = clock()
    context, vocabulary = load(file, repack, max(depths) + prompt + decode + 1, COPY + 1, threads)
    loaded = clock() - begun
    session = Session(context, vocabulary, clock)
    prefills, decodes = [], []
    for depth in depths:
        session.fill(depth)
        prefills.append([session.seconds([prompt]) for _ in range(runs)])
        decodes.append([session.seconds([1] * decode) / decode for _ in range(runs)])
    return {
        "load_seconds": loaded,
        "prefill_seconds": prefills,
        "decode_seconds": decodes,
        "system": "AVX2 code alone, by its disassembly" + (", repacked" if repack else ""),
        "version": f"ik-llama-cpp-python {version('ik-llama-cpp-python')}",
    }


def run_together(
    clock: Clock, repack: bool, file: str, counts: list[int], tokens: int, rounds: int, threads: int
) -> list[float]:
    """Seconds of a step that decodes so many sequences and chooses a token of each, by count."""
    room = tokens * (rounds + 1) * max(counts)
    context, vocabulary = load(file, repack, room, max(counts), threads)
    medians = []
    for count in counts:
        api.llama_kv_cache_clear(context)
        times = []
        for number in range(rounds + 1):
            begun = clock()
            for place in range(number * tokens, (number + 1) * tokens):
                decode_together(context, vocabulary, count, place)
            times.append((clock() - begun) / tokens)
        medians.append(statistics.median(times[1:]))  # the first round warms caches
    return medians


def decode_together(context: Any, vocabulary: int, count: int, place: int) -> None:
    """Run one token of each sequence."""
    batch = make_batch_range([TOKEN] * count, pos_start=place)
    for row in range(count):
        batch.pos[row], batch.seq_id[row][0], batch.logits[row] = place, row, 1
    if failed := api.llama_decode(context, batch):
        sys.exit(f"llama_decode returned {failed}")
    for row in range(count):
        logits = api.llama_get_logits_ith(context, row)
        np.ctypeslib.as_array(logits, (vocabulary,)).argmax()
    api.llama_batch_free(batch)


def main(command: str, file: str, depths: str, *numbers: str) -> None:
    repack, command = command.endswith("-repacked"), command.removesuffix("-repacked")
    together, clock = command.startswith("together-"), CLOCKS[command.removeprefix("together-")]
    spoken = os.dup(1)
    os.dup2(2, 1)  # what the library prints goes elsewhere than the answer
    api.llama_backend_init()
    declare_all()
    places, rest = [int(each) for each in depths.split(",")], map(int, numbers)
    answer = (run_together if together else run)(clock, repack, file, places, *rest)
    os.write(spoken, (json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
