"""Recording a step, with torch's CUDA graphs played."""

from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from glm4q.decode.graphs import Recorded
from glm4q.memory.allocation import Memory
from tests import tiny
from tests.glm4q.memories import CPU, plan_on_cpu, random_model


class PlayedGraph:
    """Notes work while it is recorded; replays by doing it."""

    recording: "PlayedGraph | None" = None

    def __init__(self) -> None:
        self.work: list[Any] = []
        self.replays = 0

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
    def graph(into: PlayedGraph) -> Any:
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
    done: list[int] = []
    record = Recorded()
    for _ in range(4):
        record(lambda: _launch(lambda: done.append(1)))
    assert len(done) == 4
    assert len(played) == 1
    assert played[0].replays == 3  # the first run warms up


def test_replayed_steps_say_what_plain_steps_say(
    played: list[PlayedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose single steps are recorded, the record played by the step's own operators."""
    config = replace(tiny.BASE, num_hidden_layers=1)
    model = random_model(config)
    plain, recorded = (
        Memory.allocate(plan_on_cpu(config, 16, chunk=4), {"host": CPU}, torch.float32)
        for _ in range(2)
    )
    recorded = replace(recorded, record=Recorded())
    finish = model._finish

    def played_finish(memory: Memory, _: object, tokens: int, last: int) -> None:
        # Played, the record is run again by Python, and so must be told the length as a device is.
        _launch(lambda: finish(memory, recorded.cache.reserve(1), tokens, last))

    monkeypatch.setattr(model, "_finish", played_finish)
    found = [model(torch.tensor([[token]]), recorded).clone() for token in range(5)]
    monkeypatch.undo()
    expected = [model(torch.tensor([[token]]), plain).clone() for token in range(5)]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))


def test_nothing_is_recorded_on_a_cpu() -> None:
    plan = plan_on_cpu(tiny.BASE, 16)
    assert Memory.allocate(plan, {"host": CPU}, torch.float32).record is None
