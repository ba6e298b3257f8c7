"""What the simulated card refuses, notes and counts, as a card and torch for CUDA do."""

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from tests.card.sim.device import Graph, SimDevice
from tests.card.sim.played import simulated_card
from tests.card.sim.tensors import DeviceError

CUDA = "cuda"


@pytest.fixture
def card() -> Iterator[SimDevice]:
    with simulated_card("RTX 3060") as (device, _):
        yield device


def test_tensors_say_that_they_lie_on_a_card(card: SimDevice) -> None:
    x = torch.arange(6, device=CUDA).view(2, 3)
    assert str(x.device) == "cuda:0"
    assert x.is_cuda
    assert (x[1] * 2).tolist() == [6, 8, 10]
    assert torch.cuda.get_device_capability() == (8, 6)
    assert torch.empty(4, device=CUDA).isnan().all()  # nothing is written yet


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, y: x + y,
        lambda x, y: torch.mm(x, y),
        lambda x, y: x.add_(y),
        lambda x, y: torch.add(x, x, out=y),
        lambda x, y: torch.cat((x, y)),
        lambda x, y: torch.index_select(x, 0, y[0].long()),
    ],
)
def test_an_operator_takes_tensors_of_one_device(card: SimDevice, mix: object) -> None:
    assert callable(mix)
    x, y = torch.zeros(2, 2, device=CUDA), torch.zeros(2, 2)
    with pytest.raises(DeviceError, match="same device"):
        mix(x, y)
    mix(x, torch.zeros(2, 2, device=CUDA))


def test_single_numbers_of_the_host_go_with_the_launch(card: SimDevice) -> None:
    x = torch.ones(3, device=CUDA)
    with card.trace.only() as trace:
        x.mul_(torch.tensor(2.0)).add_(1).fill_(7)
        x[1:2] = 5
    assert not trace.of("wait", "to device", "to host")
    assert x.tolist() == [7, 5, 7]


def test_a_number_that_is_assigned_to_one_place_is_copied_over_the_bus(card: SimDevice) -> None:
    """So does torch 2.11 on an H200, which refuses it while a graph is recorded."""
    x, graph = torch.ones(3, device=CUDA), torch.cuda.CUDAGraph()
    with card.trace.only() as trace:
        x[1] = 5
    assert trace.of("to device")
    assert x.tolist() == [1, 5, 1]
    refused = pytest.raises(DeviceError, match="between the host and the device")
    with refused, torch.cuda.graph(graph):
        x[1] = 5


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: x[0].item(),
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.cpu(),
        lambda x: torch.ones(3).to(CUDA),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: torch.equal(x, x),
        lambda x: torch.cuda.synchronize(),
        lambda x: x.copy_(torch.ones(3).to(torch.float64)),
        lambda x: x.copy_(torch.empty(3, pin_memory=True)),
    ],
)
def test_what_makes_the_host_wait(card: SimDevice, asks: object) -> None:
    assert callable(asks)
    x = torch.arange(3.0, device=CUDA)
    with card.trace.only() as trace:
        asks(x)
    assert trace.of("wait")


def test_copies_of_pinned_memory_do_not_wait_and_must_not_be_overtaken(card: SimDevice) -> None:
    x, staged = torch.zeros(4, device=CUDA), torch.ones(4, pin_memory=True)
    with card.trace.only() as trace:
        x.copy_(staged, non_blocking=True)
    assert not trace.of("wait")
    assert trace.bytes("to device") == 16
    with pytest.raises(DeviceError, match="still copied"):
        staged.fill_(2)
    torch.cuda.synchronize()
    staged.fill_(2)
    x.copy_(staged, non_blocking=True)
    sent = torch.cuda.Event()
    sent.record()
    sent.synchronize()
    staged.fill_(3)


def test_bytes_over_the_bus_are_those_of_the_source(card: SimDevice) -> None:
    with card.trace.only() as trace:
        torch.ones(100, dtype=torch.bfloat16).to(CUDA, torch.float32)
    assert trace.bytes("to device") == 200
    x = torch.ones(50, device=CUDA)
    with card.trace.only() as trace:
        x.cpu()
    assert trace.bytes("to host") == 200


def test_memory_is_given_back_with_the_last_view(card: SimDevice) -> None:
    before = card.allocator.allocated
    x = torch.empty(1000, device=CUDA)
    view = x[10:20].view(2, 5)
    assert card.allocator.allocated == before + 4096
    del x
    assert card.allocator.allocated == before + 4096
    del view
    assert card.allocator.allocated == before
    torch.zeros(1000, device=CUDA).add(1)
    assert card.allocator.allocated == before


def test_a_graph_runs_when_it_is_replayed(card: SimDevice) -> None:
    x, out = torch.ones(3, device=CUDA), torch.zeros(3, device=CUDA)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.add(x, x, out=out)
        out.add_(x)
    assert out.tolist() == [0, 0, 0]
    x.fill_(5)
    graph.replay()
    assert out.tolist() == [15, 15, 15]
    assert isinstance(graph, Graph)


@pytest.mark.parametrize(
    "work",
    [lambda x: x + 1, lambda x: x[0].item(), lambda x: x.copy_(torch.ones(3)), lambda x: x.cpu()],
)
def test_a_graph_allocates_nothing_and_asks_nothing(card: SimDevice, work: object) -> None:
    assert callable(work)
    x = torch.ones(3, device=CUDA)
    with (
        pytest.raises(DeviceError, match=r"recorded|copies between"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        work(x)
    assert x.sum().item() == 3  # the card goes on


def test_a_hollow_card_counts_what_it_does_not_hold() -> None:
    with simulated_card("RTX 4090", hollow=True) as (device, _):
        x = torch.empty(1 << 32, dtype=torch.uint8, device=CUDA)
        assert device.allocator.allocated == 1 << 32
        assert x[:4].sum().item() == 0
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(1 << 35, dtype=torch.uint8, device=CUDA)
