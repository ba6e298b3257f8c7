"""The product on a simulated card: it says what it says on the CPU, and asks of the card no more
than it should. `make card` runs every format on every generation of cards; here is a sample.
"""

import gc
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from calculator.model.formats import WeightFormat
from calculator.questions.fit import Wish
from glm4q.decode.sampling import SamplingParams
from glm4q.engine.loaded import GPU_DRAFTS
from tests.card.conftest import ASYMMETRIC, INT4, INT8
from tests.card.sim.models import Run, name_of, save_bitsandbytes
from tests.card.sim.played import simulated_card
from tests.glm4q.memories import prefill

PROMPT = [5, 7, 9, 11, 5, 7, 9] * 3
GREEDY = SamplingParams(temperature=0, max_tokens=6)
CARDS = "RTX 2060", "RTX 3060", "RTX 4090", "RTX 5070"
"""Their compute capabilities are 7.5, 8.6, 8.9 and 12.0."""
KVS = "bf16", "int8", "k8v4", "int4"
Formats = tuple[WeightFormat, WeightFormat] | str | None


@dataclass(frozen=True)
class Case:
    """One run of one checkpoint on one card."""

    card: str
    formats: Formats
    """Formats of layers and head; None in bf16, a word for what bitsandbytes makes."""
    kv: str
    dtype: str = "bf16"
    extra: dict[str, Any] = field(default_factory=dict)
    """What else is wished for."""

    def __str__(self) -> str:
        extra = " ".join(f"{name}={value}" for name, value in self.extra.items())
        return f"{self.card} {self.name} {self.kv} {self.dtype} {extra}".strip()

    @property
    def name(self) -> str:
        if isinstance(self.formats, str):
            return self.formats
        return "bf16" if self.formats is None else name_of(*self.formats)

    def load(self, checkpoints: Path, device: str, kernel: str = "auto", **changed: Any) -> Run:
        if (self.card, self.formats) == ("RTX 2060", "nf4"):
            kernel = "reference"  # bitsandbytes has its own code for that card, which none can run
        wish = Wish(context=64, kv=self.kv, **{"draft_tokens": 0, **self.extra, **changed})
        return Run(checkpoints / self.name, device, wish, dtype=self.dtype, kernel=kernel)


def slow(*cases: Case) -> list[Any]:
    return [pytest.param(case, marks=pytest.mark.card, id=str(case)) for case in cases]


CLOSE = [
    pytest.param(Case("RTX 3060", INT4, "int8"), id="RTX 3060 int4 int8"),
    *slow(*(Case(card, INT4, kv, "fp32") for card in CARDS for kv in KVS)),
    *slow(*(Case(card, formats, "int8") for card in CARDS for formats in (INT8, ASYMMETRIC))),
    *slow(*(Case(card, None, "bf16") for card in CARDS[1:])),
    *slow(*(Case(card, formats, "bf16") for card in CARDS for formats in ("nf4", "llm-int8"))),
]


@pytest.mark.parametrize("case", CLOSE)
def test_logits_are_those_of_the_cpu(case: Case, checkpoints: Path) -> None:
    """A chunk, then tokens one by one: plain, recorded and replayed.

    The host computes with exact activations. Where a card rounds keys and values to 16 bits, some
    of an INT4 cache's codes are rounded the other way: that is below half of what the cache's own
    rounding changes.
    """
    if isinstance(case.formats, str):
        save_bitsandbytes(checkpoints, case.formats)
    tokens = [*PROMPT, 31, 7, 71, 63, 22]
    expected, limit = _host_logits(case, tokens, checkpoints), 0.01
    if case.kv in ("k8v4", "int4"):
        limit = distance(expected, _host_logits(replace(case, kv="fp32"), tokens, checkpoints)) / 2
    elif case.dtype == "bf16":
        limit = 0.03
    with simulated_card(case.card):
        returned = case.load(checkpoints, "cuda", prefill_chunk=len(PROMPT)).logits(tokens)
    assert distance(returned, expected) < limit


def _host_logits(case: Case, tokens: list[int], checkpoints: Path) -> Tensor:
    run = case.load(checkpoints, "cpu", "reference", prefill_chunk=len(PROMPT))
    return run.logits(tokens)


def distance(returned: Tensor, expected: Tensor) -> float:
    """The largest relative distance of a token's logits."""
    return float(((returned - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


EXACT = [
    Case("RTX 3060", INT4, "fp32", "fp32"),
    *slow(
        *(Case(card, formats, "fp32", "fp32") for card in CARDS for formats in (None, INT4, INT8))
    ),
]


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_in_fp32_the_likeliest_tokens_are_the_cpu_s(case: Case, checkpoints: Path) -> None:
    expected = list(case.load(checkpoints, "cpu").answer(PROMPT, GREEDY))
    with simulated_card(case.card):
        assert list(case.load(checkpoints, "cuda").answer(PROMPT, GREEDY)) == expected


ALIKE = [
    Case("RTX 3060", INT4, "int8", extra={"draft_tokens": 3}),
    Case("RTX 3060", INT4, "int8", extra={"prefill_chunk": 8}),
    Case("RTX 3060", INT4, "int8", extra={"gpu_layers": 1, "embedding": "host"}),
]


@pytest.mark.parametrize("case", ALIKE, ids=str)
def test_how_it_runs_does_not_change_what_it_says(case: Case, checkpoints: Path) -> None:
    """Drafts, small chunks, the embedding and a layer on the host."""
    plain = replace(case, extra={})
    with simulated_card(case.card):
        expected = list(plain.load(checkpoints, "cuda").answer(PROMPT, GREEDY))
        assert list(case.load(checkpoints, "cuda").answer(PROMPT, GREEDY)) == expected


WEIGHTS: tuple[Formats, ...] = (None, INT4, INT8, ASYMMETRIC, "nf4", "llm-int8")
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"draft_tokens": 3},
    {"prefill_chunk": 8},
    {"embedding": "host"},
    {"gpu_layers": 1},
    {"gpu_layers": 1, "embedding": "host"},
    {"batch": 2},
)
EVERY = [
    Case(card, WEIGHTS[at % len(WEIGHTS)], KVS[(row + at) % len(KVS)], extra=way)
    for row, card in enumerate(CARDS)
    for at, way in enumerate(WAYS[row:] + WAYS[:row])
]
"""Each way of running, each format of weights and each of the cache, on each card."""


def test_the_cases_have_each_format_and_each_way_on_each_card() -> None:
    for choices, chosen in ((WEIGHTS, "formats"), (KVS, "kv"), (WAYS, "extra")):
        pairs = {(case.card, str(getattr(case, chosen))) for case in EVERY}
        assert pairs == {(card, str(choice)) for card in CARDS for choice in choices}


@pytest.mark.card
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_every_format_and_way_on_every_generation(case: Case, checkpoints: Path) -> None:
    """It says what the plain run says, and takes no more memory than is planned."""
    if isinstance(case.formats, str):
        save_bitsandbytes(checkpoints, case.formats)
    plain = replace(case, extra={})
    with simulated_card(case.card) as (card, driver):
        expected = list(plain.load(checkpoints, "cuda").answer(PROMPT, GREEDY))
        driver.launched.clear()
        gc.collect()
        before = card.allocator.allocated
        card.allocator.reset_peaks()
        run = case.load(checkpoints, "cuda")
        tensors = len(run.model.state_dict()) + len(run.memory.tensors)
        terms = [term for term in (*run.plan.weights, *run.plan.kv_cache) if term.device == "gpu"]
        planned = sum(term.bytes for term in terms) + run.plan.arenas["gpu"].bytes
        assert card.allocator.peak_allocated - before <= planned + 512 * tensors
        with card.trace.only() as trace:
            if case.extra.get("batch"):
                answers = run.answers([PROMPT, PROMPT], GREEDY)
            else:
                answers = [list(run.answer(PROMPT, GREEDY))]
        if "gpu_layers" in case.extra or "batch" in case.extra:
            for answer in answers:
                assert _same_but_for_a_tie(answer, expected, plain.load(checkpoints, "cuda"))
        else:
            assert answers == [expected]
        assert all(event.place.startswith(WAITING) for event in trace.of("wait")), trace.of("wait")


TIE = 8 * 2.0**-8
"""Logits that are as close to each other, of the largest, are a tie: eight steps of bfloat16."""


def _same_but_for_a_tie(answer: list[int], expected: list[int], plain: Run) -> bool:
    """Whether answers are the same until two tokens are as likely.

    Layers on the host round otherwise than those on the card, and two sequences' tokens together
    otherwise than one: several rows meet the numbers of NF4 in bfloat16. What follows a tie is
    another answer.
    """
    for at, (ours, theirs) in enumerate(zip(answer, expected, strict=True)):
        if ours != theirs:
            logits = plain.logits([*PROMPT, *expected[:at]])[-1]
            return bool((logits[ours] - logits[theirs]).abs() <= TIE * logits.max())
    return True


WAITING = "glm4q/decode/", "glm4q/memory/staging.py", "glm4q/model/"
"""Whence a run waits for the card: a token is read, rows of the host's embedding are copied."""


ID_BYTES = 8
STEPS = [
    Case("RTX 3060", INT4, "int8"),
    Case("RTX 3060", INT4, "int8", extra={"embedding": "host"}),
    Case("RTX 3060", INT4, "int8", extra={"draft_tokens": 3}),
    *slow(*(Case(card, WEIGHTS[at], kv) for at, kv in enumerate(KVS) for card in CARDS)),
]


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_a_decode_step_waits_for_the_picked_token_and_for_nothing_else(
    case: Case, checkpoints: Path
) -> None:
    with simulated_card(case.card) as (card, _):
        run = case.load(checkpoints, "cuda")
        answer = run.answer(PROMPT, GREEDY)
        for _ in range(3):  # plain, and recorded
            next(answer)
        with card.trace.only() as trace:
            next(answer)
        waits = [event.place for event in trace.of("wait")]
        assert waits
        assert all(place.startswith("glm4q/decode/sampling.py") for place in waits), waits
        hidden = run.plan.bus_bytes_per_token
        ids = 0 if hidden else ID_BYTES
        tokens = trace.bytes("to device") // (hidden + ids)
        assert trace.bytes("to device") == tokens * (hidden + ids)
        assert 1 <= tokens <= 1 + case.extra.get("draft_tokens", 0)
        # The token, and whether its logits were finite.
        assert trace.bytes("to host") <= 2 * tokens * ID_BYTES


def is_sampler(place: str) -> bool:
    return "decode/sampling.py" in place or "decode/likely.py" in place


REPLAYED = [
    Case("RTX 3060", INT4, "int8"),
    *slow(*(Case(card, WEIGHTS[at], kv) for at, kv in enumerate(KVS) for card in CARDS)),
]


@pytest.mark.parametrize("case", REPLAYED, ids=str)
def test_a_replayed_step_launches_the_same_kernels_at_the_same_addresses(
    case: Case, checkpoints: Path
) -> None:
    with simulated_card(case.card) as (card, driver):
        answer = case.load(checkpoints, "cuda").answer(PROMPT, GREEDY)
        for _ in range(3):
            next(answer)
        seen = []
        for _ in range(2):
            driver.launched.clear()
            with card.trace.only() as trace:
                next(answer)
            assert len(trace.of("replay")) == 1
            seen.append(
                [
                    (launched.name, launched.grid, *(address(each) for each in launched.arguments))
                    for launched in driver.launched
                ]
            )
            # Only the sampler allocates, and its numbers are the plan's "sampling".
            assert all(is_sampler(event.place) for event in trace.of("allocate"))
        assert seen[0] == seen[1]
        assert len(seen[0]) > 10  # products of bf16 weights are torch's, and no launches of ours


@pytest.mark.parametrize("embedding", ["host", "gpu"])
@pytest.mark.parametrize("card_name", CARDS)
def test_layers_on_the_host_send_as_much_as_is_planned(
    card_name: str, embedding: str, checkpoints: Path
) -> None:
    """The bytes over the bus of a token are those that the plan says, and the token itself."""
    case = Case(card_name, INT4, "int8", extra={"gpu_layers": 1, "embedding": embedding})
    with simulated_card(case.card) as (card, _):
        run = case.load(checkpoints, "cuda")
        answer = run.answer(PROMPT, GREEDY)
        for _ in range(3):
            next(answer)
        with card.trace.only() as trace:
            next(answer)
    hidden = run.plan.bus_bytes_per_token
    assert hidden
    crossed = trace.bytes("to device", "to host")
    assert hidden <= crossed <= hidden + 3 * ID_BYTES


ROWS_ALIKE = [
    Case("RTX 3060", INT4, "int8"),
    *slow(
        Case("RTX 2060", INT4, "bf16", "fp32"),
        Case("RTX 4090", INT8, "int4"),
        Case("RTX 5070", ASYMMETRIC, "k8v4"),
        Case("RTX 3060", None, "bf16"),
    ),
]


@pytest.mark.parametrize("case", ROWS_ALIKE, ids=str)
def test_the_tokens_of_a_draft_have_the_bits_that_they_have_alone(
    case: Case, checkpoints: Path
) -> None:
    """Steps of any draft are one record of the longest, which allocates nothing."""
    tokens = [31, 7, 71, 63]
    with simulated_card(case.card) as (card, _):
        run = case.load(checkpoints, "cuda", draft_tokens=None)
        assert run.memory.draft_tokens == GPU_DRAFTS == len(tokens) - 1
        prefill(run.runner, PROMPT)
        alone = torch.cat([run.runner(torch.tensor([[token]])).clone() for token in tokens])
        for count in (4, 4, 2, 3):
            run.memory.cache.truncate(len(PROMPT))
            with card.trace.only() as trace:
                together = run.runner(torch.tensor([tokens[:count]]), last=count)
            assert torch.equal(together, alone[:count])
            assert run.memory.cache.length == len(PROMPT) + count
        assert len(trace.of("replay")) == 1
        assert not trace.of("allocate")


def address(argument: object) -> object:
    return argument.data_ptr() if isinstance(argument, torch.Tensor) else argument


def test_sampling_waits_once(checkpoints: Path) -> None:
    case = Case("RTX 3060", INT4, "int8")
    params = SamplingParams(top_p=0.9, top_k=20, min_p=0.05, repetition_penalty=1.1, seed=3)
    with simulated_card(case.card) as (card, _):
        answer = case.load(checkpoints, "cuda").answer(PROMPT, params)
        for _ in range(3):
            next(answer)
        with card.trace.only() as trace:
            next(answer)
        assert len(trace.of("wait")) == 1


def test_memory_is_all_given_back(checkpoints: Path) -> None:
    case = Case("RTX 3060", INT4, "int8")
    with simulated_card(case.card) as (card, driver):
        run = case.load(checkpoints, "cuda")
        assert list(run.answer(PROMPT[:5], SamplingParams(temperature=0, max_tokens=2)))
        del run
        driver.launched.clear()
        gc.collect()
        assert card.allocator.allocated == card.workspace_bytes
