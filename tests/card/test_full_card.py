"""A card that has no memory left for a request: one line, nothing leaked, and the session goes on.

A run without failures first tells which lines of the product ask for memory. Each is then refused
once, at its first and at its last request of a message. Beside PyTorch's allocator, CUDA asks for a
graph's memory and Triton for that of a kernel's code: these are refused as well.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from calculator.errors import MemoryFullError
from glm4q.cli import main
from glm4q.decode.answer import Answer, Token
from glm4q.decode.batch import Batch
from glm4q.decode.generate import token_ids
from glm4q.decode.sampling import SamplingParams
from glm4q.kernels.gpu.launch import Launch
from glm4q.measure import bandwidth, speed
from tests.card.conftest import INT4
from tests.card.sim.device import Graph, SimDevice
from tests.card.sim.models import Run
from tests.card.sim.played import simulated_card
from tests.card.sim.trace import Trace
from tests.card.test_runs import GREEDY, PROMPT, Case, is_sampler
from tests.card.triton_driver import PlayedDriver

SHORT = replace(GREEDY, max_tokens=4)
"""A plain step, a recorded one, and a replayed one."""
SAMPLED = SamplingParams(
    max_tokens=4, top_p=0.9, top_k=20, min_p=0.05, repetition_penalty=1.1, seed=3
)
FIRST, SECOND = PROMPT[:3], [*PROMPT[:3], *PROMPT[:12]]
"""The prompts of two messages of a conversation."""
PLAIN = Case("RTX 3060", INT4, "int8")
CASES = [
    PLAIN,
    replace(PLAIN, extra={"prefill_chunk": 8}),
    replace(PLAIN, extra={"draft_tokens": 3}),
    replace(PLAIN, extra={"gpu_layers": 1, "embedding": "host"}),
    replace(PLAIN, kv="int4"),
    replace(PLAIN, card="RTX 2060", kv="k8v4"),
    Case("RTX 5070", None, "bf16"),
]


@dataclass
class Session:
    """A model on a card, and the messages that it is sent."""

    card: SimDevice
    driver: PlayedDriver
    run: Run

    def __post_init__(self) -> None:
        self.batch = Batch(self.run.runner)

    def say(self, prompt: list[int], params: SamplingParams) -> list[int]:
        """The whole answer. Raises the error that ended it."""
        return list(token_ids(self.batch.stream(self.batch.join(prompt, params))))

    def start_anew(self) -> None:
        """Forget the conversation; what was recorded stays."""
        self.run.forget()
        self.batch = Batch(self.run.runner)

    @property
    def allocated(self) -> int:
        return allocated(self.card, self.driver)


def allocated(card: SimDevice, driver: PlayedDriver) -> int:
    """Bytes that tensors take on the card."""
    driver.launched.clear()
    gc.collect()
    return card.allocator.allocated - card.workspace_bytes


@contextmanager
def session(case: Case, checkpoints: Path) -> Iterator[Session]:
    with simulated_card(case.card) as (card, driver):
        yield Session(card, driver, case.load(checkpoints, "cuda"))


@contextmanager
def refused(card: SimDevice, request: int) -> Iterator[None]:
    """The card has no memory for that request, counted from now."""
    card.allocator.fail_at, card.allocator.requests = request, 0
    try:
        yield
    finally:
        card.allocator.fail_at = None


def ends_in_one_line() -> Any:
    return pytest.raises(MemoryFullError, match=r"^the device has no memory left: [^\n]*$")


def requests(trace: Trace, *, fresh: bool = False, sampler: bool = True) -> list[int]:
    """The first and the last request of each line of the product.

    fresh: whether cuBLAS asks for its workspace as well, which it keeps for as long as a card is
    there. sampler: whether each line of a sampler counts, which are many, or all of it as one.
    """
    asked = [each for each in trace.of("allocate") if fresh or each.name != "cuBLAS"]
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, event in enumerate(asked):
        one = is_sampler(event.place) and not sampler
        place = "sampler" if one else event.place
        first.setdefault(place, number)
        last[place] = number
    return sorted({*first.values(), *last.values()})


def sampled(*cases: Case) -> list[Any]:
    """The plain case with its last request, and all cases with all lines, which are slow."""
    return [
        pytest.param(PLAIN, False, id="sample"),
        *(pytest.param(case, True, marks=pytest.mark.card, id=str(case)) for case in cases),
    ]


@pytest.mark.parametrize(("case", "every"), sampled(*CASES))
def test_loading_that_is_refused_memory_leaves_none_and_works_again(
    case: Case, every: bool, checkpoints: Path
) -> None:
    """At each request in turn."""
    with simulated_card(case.card) as (card, driver):
        with card.trace.only() as trace:
            run = case.load(checkpoints, "cuda")
        expected = run.logits(FIRST)
        del run
        total = len(trace.of("allocate"))
        assert total > 4
        for request in range(total) if every else (0, total - 1):
            with refused(card, request), ends_in_one_line():
                case.load(checkpoints, "cuda")
            assert allocated(card, driver) == 0
        assert torch.equal(case.load(checkpoints, "cuda").logits(FIRST), expected)


@pytest.mark.parametrize(("case", "every"), sampled(*CASES))
def test_a_message_that_is_refused_memory_ends_and_is_answered_when_it_is_sent_again(
    case: Case, every: bool, checkpoints: Path
) -> None:
    """The second message of a conversation: chunks of its prompt, and replayed steps."""
    with session(case, checkpoints) as ours:
        first = ours.say(FIRST, SHORT)
        with ours.card.trace.only() as trace:
            expected = ours.say(SECOND, SAMPLED)
        numbers = requests(trace, sampler=case == PLAIN)
        assert len(numbers) > 1
        for request in numbers if every else numbers[-1:]:
            ours.start_anew()
            assert ours.say(FIRST, SHORT) == first
            before = ours.allocated
            with refused(ours.card, request), ends_in_one_line():
                ours.say(SECOND, SAMPLED)
            assert ours.allocated == before
            assert ours.say(SECOND, SAMPLED) == expected


@pytest.mark.card
@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_a_first_message_that_is_refused_memory_ends_and_is_answered_when_it_is_sent_again(
    case: Case, checkpoints: Path
) -> None:
    """Steps that compile kernels, and that are recorded."""
    with session(case, checkpoints) as ours, ours.card.trace.only() as trace:
        expected = ours.say(FIRST, SHORT)
    for request in requests(trace, fresh=True, sampler=False):
        with session(case, checkpoints) as ours:
            before = ours.allocated
            with refused(ours.card, request), ends_in_one_line():
                ours.say(FIRST, SHORT)
            assert ours.allocated == before
            assert ours.say(FIRST, SHORT) == expected


@contextmanager
def refused_by_the_driver(owner: Any, name: str, call: int, message: str) -> Iterator[None]:
    """That call of a function raises what CUDA or Triton raise; the first is call 0."""
    plain, calls = getattr(owner, name), count()

    def refuse(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise RuntimeError(message)
        return plain(*arguments, **options)

    with patch.object(owner, name, refuse):
        yield


@contextmanager
def no_graph_fits() -> Iterator[None]:
    """What was recorded cannot be made a graph, as CUDA says when the recording ends."""
    plain = torch.cuda.graph

    @contextmanager
    def graph(*arguments: Any, **options: Any) -> Iterator[None]:
        with plain(*arguments, **options):
            yield
        raise RuntimeError("CUDA error: out of memory")

    with patch.object(torch.cuda, "graph", graph):
        yield


CUDA_FULL, TRITON_FULL = "CUDA error: out of memory", "Triton Error [CUDA]: out of memory"
DRIVER: tuple[Callable[[], AbstractContextManager[None]], ...] = (
    lambda: refused_by_the_driver(Launch, "run", 0, TRITON_FULL),  # in the chunk of the prompt
    lambda: refused_by_the_driver(Launch, "run", 9, TRITON_FULL),
    lambda: refused_by_the_driver(Launch, "run", 35, TRITON_FULL),  # in a step
    no_graph_fits,
    lambda: refused_by_the_driver(Graph, "replay", 1, CUDA_FULL),
)


def test_memory_that_cuda_or_triton_lack_ends_an_answer_and_not_the_session(
    checkpoints: Path,
) -> None:
    """Once while each is asked for by the first message, before it is answered at last."""
    with session(PLAIN, checkpoints) as ours:
        before = ours.allocated
        for refusal in DRIVER:
            ours.start_anew()
            with refusal(), ends_in_one_line():
                ours.say(FIRST, SHORT)
            assert ours.allocated == before
        answered = ours.say(FIRST, SHORT)
    with session(PLAIN, checkpoints) as ours:
        assert ours.say(FIRST, SHORT) == answered


def test_other_errors_of_the_device_are_no_lack_of_memory(checkpoints: Path) -> None:
    with session(PLAIN, checkpoints) as ours:
        refusal = refused_by_the_driver(Launch, "run", 0, "CUDA error: misaligned address")
        with refusal, pytest.raises(RuntimeError, match="misaligned address"):
            ours.say(FIRST, SHORT)


def _join_and_end(ours: Session) -> list[Answer]:
    """Begin one answer, let another join it, and run both to their ends."""
    answers = [ours.batch.join(FIRST, SHORT)]
    ours.batch.step()
    answers.append(ours.batch.join(PROMPT[::-1], SHORT))
    while any(answer.finish_reason is None for answer in answers):
        ours.batch.step()
    return answers


def _tokens(answer: Answer) -> list[int]:
    return [event.token for event in answer.events if isinstance(event, Token)]


@pytest.mark.card
@pytest.mark.parametrize("kv", ["int8", "int4"])
def test_an_answer_that_joins_others_is_refused_memory_with_no_harm_to_the_session(
    kv: str, checkpoints: Path
) -> None:
    """Each answer is what it is alone, or ended by the error; and then both are answered."""
    with session(replace(PLAIN, kv=kv, extra={"batch": 2}), checkpoints) as ours:
        _join_and_end(ours)
        ours.start_anew()
        with ours.card.trace.only() as trace:
            expected = [_tokens(answer) for answer in _join_and_end(ours)]
        for request in requests(trace, sampler=False):
            ours.start_anew()
            before = ours.allocated
            with refused(ours.card, request):
                answers = _join_and_end(ours)
            ended = [answer.finish_reason == "error" for answer in answers]
            assert any(ended)
            for answer, tokens, failed in zip(answers, expected, ended, strict=True):
                assert failed or _tokens(answer) == tokens
            del answers, answer
            assert ours.allocated == before
            ours.start_anew()
            assert [_tokens(answer) for answer in _join_and_end(ours)] == expected


COMMANDS = {
    "eval": ["--text", "{text}", "--window", "64"],
    "bench": ["--prompt", "16", "--decode", "3", "--runs", "1", "--depths", "0", "--kv", "int8"],
    "chat": ["--prompt", "hello", "--max-tokens", "3", "--context", "64"],
    "calc": ["--verify", "--context", "64", "--kv", "int8"],
}


@pytest.mark.parametrize(
    ("command", "every"),
    [("eval", False), *(pytest.param(each, True, marks=pytest.mark.card) for each in COMMANDS)],
)
def test_a_command_that_is_refused_memory_ends_in_one_line(
    command: str,
    every: bool,
    chat_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = bandwidth.measure_read_bandwidth
    monkeypatch.setattr(speed, "measure_read_bandwidth", lambda device: plain(device, 1 << 16))
    text = tmp_path / "text.txt"
    text.write_text("The river rose in the night. " * 12)
    options = [each.format(text=text) for each in COMMANDS[command]]
    arguments = [command, str(chat_checkpoint), *options, "--device", "cuda"]
    with simulated_card("RTX 3060") as (card, driver):
        with card.trace.only() as trace:
            assert main(arguments) == 0
        numbers = requests(trace, sampler=False)
        for request in numbers if every else numbers[-1:]:
            capsys.readouterr()
            with refused(card, request):
                assert main(arguments) == 2
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith("glm4q: ")
            assert "no memory" in error
            assert allocated(card, driver) == 0
