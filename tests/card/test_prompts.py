"""Prompts on a simulated card: a short one is a record, filled up, and a long one few launches."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from pathlib import Path

from glm4q.decode.batch import Batch
from glm4q.decode.runner import Runner
from glm4q.kernels.gpu.attention.append import append
from glm4q.kernels.gpu.attention.attend import merge
from glm4q.kernels.gpu.attention.gluon_attend import attend
from glm4q.kernels.gpu.norm import rms_norm
from glm4q.kernels.gpu.products.few_rows import few_rows
from glm4q.kernels.gpu.products.matmul import matmul
from glm4q.kernels.gpu.products.splits import add_splits
from glm4q.memory.kv.cache import KVCache
from tests.card.conftest import INT4
from tests.card.sim.played import simulated_card
from tests.card.test_runs import GREEDY, KVS, PROMPT, Case, distance, slow

PIECES = (0, 12), (1, 3), (0, 5), (1, 16), (0, 9)
"""The row of the cache that a piece of a prompt goes to, and its tokens: all run by 16."""
CLOSE = 0.02
"""Logits that bfloat16 rounds on the way, computed in another order."""


def cache_rows(runner: Runner) -> list[KVCache]:
    return [runner.memory.cache.row(number) for number in range(runner.memory.cache.batch)]


@pytest.mark.parametrize(
    "case",
    [
        Case("RTX 3060", INT4, "int8", extra={"batch": 2}),
        *slow(*(Case("RTX 2060", INT4, kv, extra={"batch": 2}) for kv in KVS)),
    ],
    ids=str,
)
def test_pieces_of_prompts_are_one_record_whatever_their_length(
    case: Case, checkpoints: Path
) -> None:
    """And in whichever row of the cache, behind however many tokens; nothing of it allocates."""
    with simulated_card(case.card) as (card, _):
        plain, ours = (case.load(checkpoints, "cuda").runner for _ in range(2))
        plain.recorded_prompts = ()
        rows, plain_rows = cache_rows(ours), cache_rows(plain)
        if ours.memory.cache.centered:  # the first tokens set the centres, and none is added
            for runner, own in (ours, rows), (plain, plain_rows):
                for row in own:
                    runner(torch.tensor([PROMPT[:4]]), [row])
        replays = []
        for place, tokens in PIECES:
            ids = torch.tensor([PROMPT[-tokens:]])
            expected = plain(ids, [plain_rows[place]]).clone()
            with card.trace.only() as trace:
                returned = ours(ids, [rows[place]])
            replays.append(len(trace.of("replay")))
            if replays[-1]:
                assert not trace.of("allocate")
            assert distance(returned, expected) < CLOSE
            assert rows[place].length == plain_rows[place].length
        assert replays == [0, 1, 1, 1, 1]
        token = torch.tensor([[7], [9]])  # what was added is not attended to
        assert distance(ours(token, rows), plain(token, plain_rows)) < CLOSE


def test_where_there_is_no_room_to_fill_up_a_prompt_runs_as_it_is(checkpoints: Path) -> None:
    case = Case("RTX 3060", INT4, "int8")
    with simulated_card(case.card) as (card, _):
        runner = case.load(checkpoints, "cuda").runner
        full = runner.memory.cache.max_seq_len
        runner(torch.tensor([PROMPT * 4])[:, : full - 12])
        for _ in range(3):
            runner.memory.cache.truncate(full - 12)
            with card.trace.only() as trace:
                runner(torch.tensor([PROMPT[:11]]))
            assert not trace.of("replay")
        assert runner.memory.cache.length == full - 1


def test_short_prompts_that_come_together_are_a_record_each(checkpoints: Path) -> None:
    case = Case("RTX 3060", INT4, "int8", extra={"batch": 2})
    with simulated_card(case.card) as (card, _):
        together = Batch(case.load(checkpoints, "cuda").runner)
        for first in (10, 20, 30):
            answers = [together.join([first + each, *PROMPT[:8]], GREEDY) for each in range(2)]
            with card.trace.only() as trace:
                together.step()
            assert all(answer.unrun == 1 for answer in answers)
            for answer in answers:
                together.cancel(answer)
        assert len(trace.of("replay")) == 2


def compiled() -> int:
    """Codes of all kernels of a decoder that are compiled, on every card so far."""
    kernels = (few_rows, matmul, add_splits, rms_norm, append, attend, merge)
    return sum(len(codes) for each in kernels for codes, *_ in each.device_caches.values())


@pytest.mark.parametrize(
    ("kv", "batch", "drafts"),
    [("int8", 3, 0), pytest.param("int4", 3, 0, marks=pytest.mark.card), ("int4", 1, 2)],
)
def test_a_server_compiles_and_records_every_kind_of_step_before_it_answers(
    kv: str, batch: int, drafts: int, checkpoints: Path
) -> None:
    case = Case("RTX 3060", INT4, kv, extra={"batch": batch, "draft_tokens": drafts})
    with simulated_card(case.card) as (card, _):
        runner = case.load(checkpoints, "cuda").runner
        runner.record_all()
        known, rows = compiled(), cache_rows(runner)
        assert known
        for row in rows:
            runner(torch.tensor([PROMPT[:12]]), [row])
        kinds = [(tokens, 1, 1) for tokens in (7, 16, 20, 32)]
        kinds += [(1, count, 1) for count in range(1, batch + 1)]
        kinds += [(1 + drafts, 1, 1 + drafts)] if drafts else []
        for tokens, count, last in kinds:
            with card.trace.only() as trace:
                runner(torch.full((count, tokens), 5), rows[:count], last)
            assert len(trace.of("replay")) == 1
            for row in rows[:count]:
                row.truncate(12)
        runner(torch.full((1, runner.memory.cache.max_seq_len - 12), 5), rows[:1])
        assert compiled() == known
