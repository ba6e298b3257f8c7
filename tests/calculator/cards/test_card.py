"""Cards by name, by bytes, and as a played driver reports them."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from calculator.cards.card import find_card
from calculator.errors import OptionError


class NVMLError(Exception):
    """What pynvml raises."""


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A driver with one card, a third of which a browser and a game hold."""
    played = ModuleType("pynvml")
    sizes = {7: 1 << 30, 8: None}
    held = [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in sizes.items()]
    functions = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: "NVIDIA GeForce RTX 3060",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(
            total=12_288 << 20, free=9_000 << 20
        ),
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: held[:1],
        "nvmlDeviceGetGraphicsRunningProcesses": lambda handle: held,
    }
    for name, function in functions.items():
        setattr(played, name, function)
    monkeypatch.setitem(sys.modules, "pynvml", played)
    return played


def test_auto_takes_what_is_free(nvml: ModuleType) -> None:
    card = find_card("auto", None)
    assert card is not None
    assert card.usable_bytes == 9_000 << 20
    assert card.gpu is not None
    assert card.gpu.name == "RTX 3060 12GB"
    assert "free now of 12,288 MiB" in card.source
    assert "2 other processes hold 1,024 MiB" in card.source


def test_auto_with_a_card_that_no_list_has(
    nvml: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "nvmlDeviceGetName", lambda handle: b"NVIDIA Prototype")
    card = find_card("auto", None)
    assert card is not None
    assert (card.name, card.gpu, card.rates) == ("NVIDIA Prototype", None, None)


def test_auto_without_a_driver(nvml: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise NVMLError("NVML Shared Library Not Found")

    monkeypatch.setattr(nvml, "nvmlInit", missing)
    with pytest.raises(OptionError, match=r"reports no card \(NVML Shared Library Not Found\)"):
        find_card("auto", None)


def test_bytes_alone_have_no_speed() -> None:
    card = find_card(None, "11.5")
    assert card is not None
    assert card.usable_bytes == round(11.5 * (1 << 30))
    assert card.rates is None


def test_bytes_of_a_named_card_keep_its_speed() -> None:
    card = find_card("4090", "20000M")
    assert card is not None
    assert card.usable_bytes == 20_000 << 20
    assert card.rates is not None
    assert card.rates.bandwidth == pytest.approx(1008e9, rel=0.001)
    assert card.arguments == ("--gpu", "RTX 4090", "--vram", "20000M")


@pytest.mark.parametrize("vram", ["nan", "inf", "-1", "0", "", "8 cards", "9" * 30, "1e3", "٨"])
def test_memory_that_is_none(vram: str) -> None:
    with pytest.raises(OptionError, match=r"^vram"):
        find_card(None, vram)


def test_no_card() -> None:
    assert find_card(None, None) is None
    with pytest.raises(OptionError, match="vram is not for gpu auto"):
        find_card("auto", "8")
