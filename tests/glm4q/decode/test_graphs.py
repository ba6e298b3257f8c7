"""Recording a step, with torch's CUDA graphs played."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from glm4q.decode.steps.graphs import Records
from glm4q.kernels.attention.streaming import StreamingAttention
from tests import tiny
from tests.glm4q.memories import memory_on_cpu, random_model, runner_of


class PlayedGraph:
    """Notes work while it is recorded; replays by doing it."""

    recording: "PlayedGraph | None" = None

    def __init__(self) -> None:
        self.work: list[Any] = []
        self.replays = 0

    def pool(self) -> str:
        return "the first one's"

    def replay(self) -> None:
        self.replays += 1
        for each in self.work:
            each()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[PlayedGraph]:
    """torch.cuda without a GPU: every graph that is made."""
    made: list[PlayedGraph] = []

    def new() -> PlayedGraph:
        made.append(PlayedGraph())
        return made[-1]

    @contextmanager
    def graph(into: PlayedGraph, pool: str | None = None) -> Any:
        assert pool == (None if into is made[0] else into.pool())
        PlayedGraph.recording = into
        yield
        PlayedGraph.recording = None

    monkeypatch.setattr(torch.cuda, "CUDAGraph", new)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return made


def _launch(kernel: Any) -> None:
    """What a launch does: nothing while it is recorded, but for the note."""
    if PlayedGraph.recording is None:
        kernel()
    else:
        PlayedGraph.recording.work.append(kernel)


def test_work_is_done_once_each_time_however_it_is_run(played: list[PlayedGraph]) -> None:
    done: list[str] = []
    records = Records()
    for _ in range(4):
        for kind in ("one", "other"):
            records.run(kind, partial(_launch, partial(done.append, kind)))
    assert done == ["one", "other"] * 4
    assert [each.replays for each in played] == [3, 3]  # the first run warms up


class ReadsLength(StreamingAttention):
    """Played, a record is run again by Python, which looks at the cache's length each time."""

    reads_length_on_device = True


def test_replayed_steps_say_what_plain_steps_say(
    played: list[PlayedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose single steps are recorded, the record played by the step's own operators."""
    config = replace(tiny.BASE, num_hidden_layers=1)
    model = random_model(config)
    plain, recorded = (
        runner_of(model, memory_on_cpu(config, 16, chunk=4), attention=attention)
        for attention in (StreamingAttention(), ReadsLength())
    )
    finish = recorded._finish
    monkeypatch.setattr(recorded, "_finish", lambda *given: _launch(partial(finish, *given)))
    found = [recorded(torch.tensor([[token]])).clone() for token in range(5)]
    assert played[0].replays == 4
    expected = [plain(torch.tensor([[token]])).clone() for token in range(5)]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))


def test_nothing_is_recorded_on_a_cpu() -> None:
    runner = runner_of(random_model(tiny.BASE), memory_on_cpu(tiny.BASE, 16))
    assert not runner._recordable
