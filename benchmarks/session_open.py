"""How long a kept session takes to open, beside reading its tokens again.

    python -m benchmarks.session_open CHECKPOINT [--tokens 8000] [--kv int8]

On two quiet cores 8,000 tokens of the demo model take 15 to 45 s for each format.

The prompt is run, its cache saved, and restored into another empty cache; then the same token is
run behind both, and the logits are compared bit by bit. Files come from the page cache, as those
that were written lately do.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import describe_machine
from calculator.questions.fit import Wish
from calculator.units import human_bytes
from glm4q.decode.batch import Batch
from glm4q.decode.prefixes.disk_limit import list_blocks
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM

LIMIT = 1 << 40


def measure(checkpoint: Path, tokens: int, kv: str, directory: Path) -> None:
    """Print one row of the table."""
    llm = LLM.load(checkpoint, wish=Wish(context=tokens + 16, kv=kv))
    vocabulary = llm.plan.config.vocab_size
    prompt = torch.randint(0, vocabulary, (tokens,), generator=torch.Generator().manual_seed(1))
    batch = llm.rows
    begun = time.perf_counter()
    answer = batch.join(prompt.tolist(), SamplingParams(temperature=0, max_tokens=1))
    list(batch.stream(answer))
    read = time.perf_counter() - begun
    begun = time.perf_counter()
    store, _ = llm.keep_prefixes(directory, limit=LIMIT)
    named = time.perf_counter() - begun
    begun = time.perf_counter()
    tail = store.save(answer.row)
    saved = time.perf_counter() - begun
    following = torch.tensor([[7]])
    expected = batch._runner(following, [answer.row.cache]).clone()
    fresh = Batch(llm.new_runner())
    opened = float("inf")
    for _ in range(3):
        store, _ = llm.keep_prefixes(directory, limit=LIMIT)
        fresh.prefixes = store
        fresh.rows[0].forget()
        begun = time.perf_counter()
        assert tail is not None
        restored = fresh.restore(tail)
        opened = min(opened, time.perf_counter() - begun)
    assert restored.problem is None
    same = torch.equal(fresh._runner(following, [fresh.rows[0].cache]), expected)
    nbytes = sum(block.nbytes for block in list_blocks(directory))
    print(
        f"| {kv} | {restored.tokens:,} | {human_bytes(nbytes)} | {read:.2f} s | {named:.2f} s "
        f"| {saved:.2f} s | {opened:.3f} s | {read / opened:.0f} | {'yes' if same else 'NO'} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--kv", nargs="+", default=["bf16", "int8", "k8v4", "int4"])
    options = parser.parse_args()
    print(describe_machine())
    print("| KV | tokens | on disk | prefill | name the run | save | open | times | same bits |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    for kv in options.kv:
        with tempfile.TemporaryDirectory() as directory:
            measure(options.checkpoint, options.tokens, kv, Path(directory))


if __name__ == "__main__":
    main()
