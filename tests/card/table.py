"""Write benchmarks/gpu_access.md: what a decoded token's launches ask of a card's memory, counted
by the machine that runs their compiled code. No GPU is used.

python -m tests.card.table
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu_kernels_static import CARDS, Loop, budget, loops
from calculator.cards.gpus import Gpu, find_gpu
from calculator.memory.workspace import FEW_TOKENS
from calculator.model.formats import NF4, WeightFormat
from tests.card.attentions import AttentionCase
from tests.card.products import ProductCase
from tests.card.ptx.machine import Account
from tests.card.triton_driver import Launched, played_driver
from tests.glm4q.kernels.gpu import interpreted
from tests.paths import ROOT

FILE = ROOT / "benchmarks" / "gpu_access.md"
CAPABILITIES = 75, 80, 86, 89, 120
AMPERE = 80
INT4, INT8 = WeightFormat(4, 128), WeightFormat(8, 128)
CACHED = 3000
ROWS, TOKENS = 500, 333
KVS = "bf16", "int8", "k8v4", "int4"
TEXT = """\
# What the GPU kernels ask of memory, counted instruction by instruction

Written by `python -m tests.card.table`; do not edit. **No GPU was used, and nothing is timed.**
The machine of tests/card/ptx ran the PTX that Triton compiles for each architecture, on GLM-4-9B's
shapes; every launch gave the numbers of the reference.

- asked / needed: 32-byte sectors that a warp asks for between two branches, stores or barriers, in
  bytes, over the bytes that its lanes use. 1.00 is perfect coalescing.
- asked / touched: the same sectors over those that the block touches, each counted once: what the
  nearest cache must serve again.
- conflicts: the most wavefronts that one access to shared memory takes inside a loop; 1 is none, a
  dash is a loop without shared memory.
- instructions per byte: PTX instructions of all threads over bytes read, the whole launch.

| capability | launch | asked / needed | asked / touched | conflicts | instructions per byte |
|---:|---|---:|---:|---:|---:|
{launches}

## A chunk of a prompt

The same of {rows} tokens by a weight, and of {tokens} tokens that attend to {cached:,} cached ones
and to themselves; first, middle and last blocks. Instructions are those of a warp for each product
of a tensor core; what a card can issue meanwhile stands in [gpu_kernels.md](gpu_kernels.md).

| capability | launch | asked / needed | asked / touched | conflicts | instructions per product |
|---:|---|---:|---:|---:|---:|
{prompts}

## A draft

Attention from the last token of a draft of {draft}, which has launches of its own: they do what the
launches of one token alone do, with the same code, and count the {last} tokens before it as cached.
So a draft reads a cache as often as it has tokens; what a card keeps in its second cache is read
from memory once.

| capability | launch | asked / needed | asked / touched | conflicts | instructions per byte |
|---:|---|---:|---:|---:|---:|
{drafts}

## What share of bandwidth that predicts

A decode kernel's share of the memory's rate is at most 1 / (asked / needed), and at most what its
instructions leave: the card's issue rate for each byte over the instructions of the main loop for
each byte (docs/kernels.md, from machine code). The lower of the two is predicted; latency, the
launches' own time and what a block does before and after its loop are not in it.

| card | loop | by coalescing | by instructions | predicted | bound by |
|---|---|---:|---:|---:|---|
{shares}
"""


def decode_launches(capability: int) -> Iterator[tuple[str, Launched]]:
    """Each kind of launch of a decoded token, by name."""
    formats = [INT4, INT8, *([NF4] if capability >= AMPERE else [])]
    for each in formats:
        for shape in ((4096, 4096), (27_392, 4096), (151_552, 4096)):
            few = each.scheme != "nf4"
            driver, _, _ = ProductCase(*shape, each, 1, capability, whole=False, few=few).run()
            for launched in driver.launched:
                yield f"{each} {shape[0]:,} x {shape[1]:,} {launched.name}", launched
    for kv in KVS:
        driver, _, _ = AttentionCase(kv, CACHED, 1, capability).run()
        for launched in driver.launched:
            yield f"{kv} cache {launched.name}", launched
    with played_driver(capability) as driver:
        interpreted.norm(torch.randn(1, 4096).bfloat16(), torch.ones(4096).bfloat16(), 1e-5)
    yield "norm", driver.launched[0]


def prompt_launches(capability: int) -> Iterator[tuple[str, Launched]]:
    """Each kind of launch of a prompt's chunk that multiplies, by name."""
    for each in INT4, INT8:
        driver, _, _ = ProductCase(4096, 4096, each, ROWS, capability, whole=False).run()
        yield f"{each} 4,096 x 4,096 matmul", driver.launched[-1]
    for kv in KVS:
        driver, _, _ = AttentionCase(kv, CACHED, TOKENS, capability).run()
        (attend,) = (each for each in driver.launched if each.name == "attend")
        yield f"{kv} cache attend", attend


def draft_launches(capability: int) -> Iterator[tuple[str, Launched]]:
    """Each kind of launch of the last token of a draft, by name."""
    for kv in KVS:
        driver, _, _ = AttentionCase(kv, CACHED, FEW_TOKENS, capability).run()
        append, attend, merge = driver.launched[FEW_TOKENS - 1], *driver.launched[-2:]
        for launched in (append, attend, merge):
            yield f"{kv} cache {launched.name}", launched


def launch_row(capability: int, name: str, account: Account) -> str:
    counts, worst = account.counts, account.worst_conflict
    per_byte = 32 * counts.warp_instructions / max(counts.unique_bytes, 1)
    return (
        f"| {capability / 10} | {name} | {account.asked_over_needed:.2f} | {account.reread:.2f} "
        f"| {worst or '-'} | {per_byte:.1f} |"
    )


def prompt_row(capability: int, name: str, account: Account) -> str:
    products = sum(
        line.warps
        for line, text in zip(account.lines, account.program.text, strict=True)
        if text.startswith("mma.")
    )
    return (
        f"| {capability / 10} | {name} | {account.asked_over_needed:.2f} | {account.reread:.2f} "
        f"| {account.worst_conflict or '-'} | {account.counts.warp_instructions / products:.1f} |"
    )


def share_rows(accounts: dict[tuple[int, str], Account]) -> Iterator[str]:
    cards = {gpu: round(10 * float(gpu.compute_capability or 0)) for gpu in map(find_gpu, CARDS)}
    loops_of = {capability: list(loops(capability)) for capability in set(cards.values())}
    for gpu, capability in cards.items():
        for loop in loops_of[capability]:
            yield _share_row(gpu, loop, accounts[capability, _launch_of(loop)])


def _launch_of(loop: Loop) -> str:
    """The launch that has this main loop."""
    if loop.name.startswith("attention"):
        return f"{loop.name.removeprefix('attention ')} cache attend"
    weight_format, _, kind = loop.name.rpartition(" ")
    outputs, kernel = "151,552" if kind == "head" else "4,096", loop.compiled.launch.kernel.__name__
    return f"{weight_format} {outputs} x 4,096 {kernel}"


def _share_row(gpu: Gpu, loop: Loop, account: Account) -> str:
    coalescing = min(1 / account.asked_over_needed, 1)
    issue = min(budget(gpu) / loop.per_byte, 1)
    share = min(coalescing, issue)
    bound = "memory" if issue >= coalescing else "instructions"
    return f"| {gpu.name} | {loop.name} | {coalescing:.0%} | {issue:.0%} | {share:.0%} | {bound} |"


def main() -> None:
    torch.manual_seed(0)
    accounts, rows, prompts, drafts = {}, [], [], []
    for capability in CAPABILITIES:
        for name, launched in decode_launches(capability):
            accounts[capability, name] = launched.account
            rows.append(launch_row(capability, name, launched.account))
        for name, launched in prompt_launches(capability):
            prompts.append(prompt_row(capability, name, launched.account))
        for name, launched in draft_launches(capability):
            drafts.append(launch_row(capability, name, launched.account))
    text = TEXT.format(
        launches="\n".join(rows),
        prompts="\n".join(prompts),
        shares="\n".join(share_rows(accounts)),
        rows=ROWS,
        tokens=TOKENS,
        cached=CACHED,
        drafts="\n".join(drafts),
        draft=FEW_TOKENS,
        last=FEW_TOKENS - 1,
    )
    Path(FILE).write_text(text)


if __name__ == "__main__":
    main()
