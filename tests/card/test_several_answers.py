"""Answers that are decoded together on a simulated card: in recorded steps they are those alone."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from glm4q.decode.batch import Batch
from glm4q.decode.generate import token_ids
from tests.card.conftest import INT4
from tests.card.sim.played import simulated_card
from tests.card.test_runs import GREEDY, ID_BYTES, PROMPT, Case, address, is_sampler


def test_answers_together_are_those_alone(checkpoints: Path) -> None:
    case = Case("RTX 3060", INT4, "int8")
    prompts, short = [PROMPT, PROMPT[:5]], replace(GREEDY, max_tokens=4)
    with simulated_card(case.card):
        together = case.load(checkpoints, "cuda", batch=2).answers(prompts, short)
        run = case.load(checkpoints, "cuda")
        for prompt, answer in zip(prompts, together, strict=True):
            assert list(run.answer(prompt, short)) == answer
            run.forget()


@pytest.mark.parametrize("batch", [2, 3])
def test_a_step_of_several_answers_is_replayed_and_waits_only_for_their_tokens(
    batch: int, checkpoints: Path
) -> None:
    case = Case("RTX 3060", INT4, "int8", extra={"batch": batch})
    with simulated_card(case.card) as (card, _):
        together = Batch(case.load(checkpoints, "cuda").runner)
        answers = [together.join(PROMPT, GREEDY) for _ in range(batch)]
        while any(answer.unrun > 1 for answer in answers):
            together.step()
        for _ in range(2):  # plain, and recorded
            together.step()
        with card.trace.only() as trace:
            assert len(together.step()) == batch
    assert len(trace.of("replay")) == 1
    assert all(is_sampler(event.place) for event in trace.of("allocate"))
    waits = [event.place for event in trace.of("wait")]
    assert 1 <= len(waits) <= batch
    assert all(place.startswith("glm4q/decode/sampling.py") for place in waits), waits
    assert trace.bytes("to device") == batch * ID_BYTES
    assert trace.bytes("to host") <= 2 * batch * ID_BYTES


@pytest.mark.parametrize("kv", ["int8", pytest.param("int4", marks=pytest.mark.card)])
def test_one_record_serves_sequences_in_any_rows_of_the_cache(kv: str, checkpoints: Path) -> None:
    """Four answers, of which the first two leave; three are filled up to four."""
    case, prompts = Case("RTX 3060", INT4, kv), (PROMPT, PROMPT[:5], PROMPT[3:14], PROMPT[2:9])
    long = replace(GREEDY, max_tokens=24)
    with simulated_card(case.card) as (card, driver):
        run = case.load(checkpoints, "cuda")
        alone = []
        for prompt in prompts:
            run.forget()
            alone.append(list(run.answer(prompt, long)))
        together = Batch(case.load(checkpoints, "cuda", batch=4).runner)
        first, second, *others = (together.join(prompt, long) for prompt in prompts)
        for _ in range(4):
            together.step()
        launched = []
        for leaves in (None, first):
            if leaves:
                together.cancel(leaves)
            driver.launched.clear()
            with card.trace.only() as trace:
                together.step()
            assert len(trace.of("replay")) == 1
            launched.append([[*map(address, each.arguments)] for each in driver.launched])
        assert launched[0] == launched[1]
        together.cancel(second)
        for _ in range(2):  # two alone have a record of their own
            together.step()
        with card.trace.only() as trace:
            together.step()
        assert len(trace.of("replay")) == 1
        for answer, expected in zip(others, alone[2:], strict=True):
            assert [*token_ids(together.stream(answer))] == expected
