"""What only a CUDA device can show.

With `--compiled-for 7.5`, 8.6 or 8.9 they run the kernels that such a card gets, on the card here.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_clock import replayed_seconds, seconds
from benchmarks.gpu_receipt import copy_rate
from calculator.memory.settings import Settings
from calculator.model.formats import LLM_INT8, NF4, WeightFormat, assign_formats
from calculator.model.presets import PRESETS
from calculator.questions.fit import Wish
from glm4q.decode.runner import Runner
from glm4q.decode.steps.graphs import WARM_UP
from glm4q.engine import load_as_planned, new_runner
from glm4q.kernels.attention.attention_spec import AttentionSpec
from glm4q.kernels.attention.streaming import StreamingAttention, attend
from glm4q.kernels.attention.triton_attention import TritonAttention
from glm4q.kernels.choose import ATTENTION
from glm4q.kernels.spec import LinearSpec, multiply
from glm4q.kernels.triton_linear import TritonLinear
from glm4q.measure.synthetic import open_synthetic
from glm4q.memory.allocation import Memory
from glm4q.planning.machine import choose_machine
from glm4q.planning.plan import plan_run
from tests.card.sim.allocator import most_block_bytes
from tests.glm4q.memories import random_model, runner_of
from tests.glm4q.random_weights import random_weight
from tests.plans import make_plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
CUDA = torch.device("cuda")
LAYERS = [(4096, 4096), (27_392, 4096), (4096, 13_696), (256, 4096)]
FORMATS = [
    WeightFormat(4, 128),
    WeightFormat(4, 64, zero_bits=4),
    WeightFormat(8, 128),
    NF4,
    LLM_INT8,
]
LEAST_SHARE_OF_BANDWIDTH = 0.5
"""What a decode product must reach of a copy's rate; llama.cpp reaches 0.6 to 0.8 of it."""
MOST_BYTES_OF_NF4 = 15e9
"""Bytes a second of a multiprocessor beyond which NF4's loop, which looks each number up, is bound
by its 12 instructions a byte. An RTX 5090 has 11e9, an H200 30e9: there it reached 0.37."""
CONFIG = replace(PRESETS["glm-4-9b-chat"], num_hidden_layers=2, vocab_size=2048)


@pytest.mark.parametrize("rows", [1, 2, 16, 17, 300])
@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
@pytest.mark.parametrize("shape", LAYERS, ids=str)
def test_product_equals_exact_arithmetic(
    shape: tuple[int, int], weight_format: WeightFormat, rows: int
) -> None:
    spec = LinearSpec(*shape, weight_format, CUDA)
    if reason := TritonLinear().refuses(spec):
        pytest.skip(reason)
    weight = random_weight(*shape, weight_format).to(CUDA)
    x = torch.randn(rows, shape[1], device=CUDA).bfloat16()
    product = multiply(TritonLinear(), spec, TritonLinear().pack(weight), x)
    exact = x.double() @ weight.dequantize().double()
    error = (product - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < 3e-3  # the result is rounded to bfloat16


@pytest.mark.parametrize(
    "weight_format", [WeightFormat(4, 128), WeightFormat(8, 128), NF4], ids=str
)
def test_one_token_reads_weights_at_half_a_copy_s_rate_or_more(weight_format: WeightFormat) -> None:
    shape = 151_552, 4096  # too large for any card's cache
    spec, kernel = LinearSpec(*shape, weight_format, CUDA), TritonLinear()
    if reason := kernel.refuses(spec):
        pytest.skip(reason)
    packed = kernel.pack(random_weight(*shape, weight_format).to(CUDA))
    x, out = torch.randn(1, 4096, device=CUDA).bfloat16(), torch.empty(1, shape[0], device=CUDA)
    scratch = torch.empty(kernel.needs(spec, 1, 2).scratch_bytes, dtype=torch.uint8, device=CUDA)
    read = sum(part.nbytes for part in packed.values())
    rate = read / replayed_seconds([partial(kernel.matmul, x, packed, out, scratch)])
    copied = copy_rate()
    each = copied / torch.cuda.get_device_properties(0).multi_processor_count
    if weight_format == NF4 and each > MOST_BYTES_OF_NF4:
        pytest.skip(f"a multiprocessor of this card moves {each:.0f} bytes a second")
    assert rate > LEAST_SHARE_OF_BANDWIDTH * copied


def _memory(kv: str) -> Memory:
    settings = Settings(context=600, prefill_chunk=64, kv=kv)
    plan = make_plan(CONFIG, assign_formats(CONFIG, WeightFormat(16)), settings)
    before = torch.cuda.memory_allocated()
    memory = Memory.allocate(plan, {"gpu": CUDA, "host": torch.device("cpu")}, torch.bfloat16)
    planned = plan.kv_cache_bytes + plan.arenas["gpu"].bytes
    allocated = torch.cuda.memory_allocated() - before
    assert planned <= allocated <= sum(most_block_bytes(each.nbytes) for each in memory.tensors)
    return memory


def _plain(runner: Runner) -> Runner:
    """Have the runner replay nothing."""
    runner._recordable = frozenset()
    return runner


@pytest.mark.parametrize("kv", ["bf16", "int8", "k8v4", "int4"])
def test_replayed_steps_say_what_plain_steps_say(kv: str) -> None:
    model = random_model(CONFIG).to(CUDA, torch.bfloat16)
    prompt = torch.randint(CONFIG.vocab_size, (1, 60))
    recorded, plain = runner_of(model, _memory(kv)), _plain(runner_of(model, _memory(kv)))
    assert recorded._recordable
    for runner in (recorded, plain):
        runner(prompt)
    for token in range(WARM_UP + 8):
        again, once = (runner(torch.tensor([[token]])) for runner in (recorded, plain))
        assert torch.equal(again, once)


@pytest.mark.parametrize("kv", ["bf16", "int8", "k8v4", "int4"])
def test_attention_by_our_kernels_says_what_torch_s_says(kv: str) -> None:
    """A prompt in pieces, of which the fourth replays the third's record, and one token.

    Where sums differ in their last bits, a key or a value near the middle of two codes gets the
    other one. So up to a tenth of what the cache's rounding changes is allowed as well.
    """
    model = random_model(CONFIG).to(CUDA, torch.bfloat16)
    tokens = torch.randint(CONFIG.vocab_size, (1, 141))
    ours = runner_of(model, _memory(kv))
    by_torch = runner_of(model, _memory(kv), attention=StreamingAttention())
    unrounded = runner_of(model, _memory("bf16"), attention=StreamingAttention())
    for part in tokens.split([64, 36, 20, 17, 3, 1], 1):
        logits, expected, exact = (runner(part).clone() for runner in (ours, by_torch, unrounded))
        allowed = 2e-2 * expected.norm() + 0.1 * (expected - exact).norm()
        assert (logits - expected).norm() < allowed


def test_attention_of_a_prompt_is_faster_than_torch_s() -> None:
    """512 tokens behind 16,384: what torch's operators do in float32, and in memory."""
    settings = Settings(context=17_000, kv="int8")
    plan = make_plan(CONFIG, assign_formats(CONFIG, WeightFormat(16)), settings)
    memory = Memory.allocate(plan, {"gpu": CUDA, "host": torch.device("cpu")}, torch.bfloat16)
    ((step, _),) = memory.steps(512)
    for tensor in step["queries"], step["hadamard"], *memory.cache.tensors:
        tensor.fill_(1)
    step["cached"].fill_(16_384)
    memory.cache.write_rows(step["cache_rows"])
    cache = memory.cache.layers()[0]
    cache.length = 16_384 + 512
    spec = AttentionSpec(CONFIG, "int8", 17_000, CUDA, several=True)
    kernel = next(kernel for kernel in ATTENTION if kernel.refuses(spec) is None)
    if not isinstance(kernel, TritonAttention):
        pytest.skip("prompts attend by torch's operators on this card")
    from glm4q.kernels.gpu.launch import run_all  # Triton is not there on every machine

    ours = partial(run_all, kernel.launches(step, cache).attend())
    assert seconds(ours) < seconds(partial(attend, step, cache))


def test_a_decode_step_allocates_nothing() -> None:
    model, memory = random_model(CONFIG).to(CUDA, torch.bfloat16), _memory("int8")
    runner = _plain(runner_of(model, memory))
    token = torch.tensor([[1]])
    runner(token)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    runner(token)
    assert torch.cuda.max_memory_allocated() - before <= 4096


@pytest.mark.parametrize(("bits", "kv"), [(4, "int8"), (8, "int4"), (4, "bf16")])
def test_the_tokens_of_a_draft_have_the_bits_that_they_have_alone(
    bits: int, kv: str, tmp_path: Path
) -> None:
    """By plain, recorded and replayed steps, of the kernels that a plan chooses."""
    formats = assign_formats(CONFIG, WeightFormat(bits, 128), WeightFormat(8, 128))
    stored = open_synthetic(tmp_path / "model", CONFIG, formats)
    machine = choose_machine("cuda", "auto", "auto")
    run_plan = plan_run(stored, machine, Wish(context=600, kv=kv), reserve=0)
    runner = new_runner(load_as_planned(stored, run_plan), run_plan, machine)
    cache, tokens = runner.memory.cache, torch.randint(CONFIG.vocab_size, (1, 4))
    assert runner.memory.draft_tokens == 3
    runner(torch.randint(CONFIG.vocab_size, (1, 60)))
    alone = torch.cat([runner(token).clone() for token in tokens.split(1, 1)])
    for count in (4, 4, 4, 2, 3):
        cache.truncate(60)
        assert torch.equal(runner(tokens[:, :count], last=count), alone[:count])


@pytest.mark.parametrize(("bits", "kv"), [(4, "int8"), (8, "int4"), (4, "bf16")])
def test_sequences_together_have_the_bits_that_they_have_alone(
    bits: int, kv: str, tmp_path: Path
) -> None:
    """Three of four rows of the cache, out of order: plain, recorded and replayed steps of four."""
    formats = assign_formats(CONFIG, WeightFormat(bits, 128), WeightFormat(8, 128))
    stored = open_synthetic(tmp_path / "model", CONFIG, formats)
    machine = choose_machine("cuda", "auto", "auto")
    wish = Wish(context=600, kv=kv, batch=4, draft_tokens=0)
    run_plan = plan_run(stored, machine, wish, reserve=0)
    runner = new_runner(load_as_planned(stored, run_plan), run_plan, machine)
    rows = [runner.memory.cache.row(row) for row in (2, 0, 3)]
    tokens, lengths = torch.randint(CONFIG.vocab_size, (3, 1)), (60, 7, 33)
    alone = []
    for row, token, length in zip(rows, tokens.split(1), lengths, strict=True):
        runner(torch.randint(CONFIG.vocab_size, (1, length)), [row])
        alone.append(runner(token, [row]).clone())
    for _ in range(4):
        for row, length in zip(rows, lengths, strict=True):
            row.truncate(length)
        assert torch.equal(runner(tokens, rows), torch.cat(alone))
