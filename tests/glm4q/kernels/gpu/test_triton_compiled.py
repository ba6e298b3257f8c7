"""The Triton kernels, compiled for cards that are not here: they fit, and spill no registers."""

import pytest

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from benchmarks.gpu_architectures import (
    ARCHITECTURES,
    MOST_REGISTERS,
    REGISTERS,
    WARP,
)
from benchmarks.gpu_compiled import Compiled, compile_for
from benchmarks.gpu_launches import KVS, attention, decode, product, prompts, rounding, several
from calculator.model.formats import NF4, WeightFormat
from glm4q.kernels.gpu.launch import Launch


def _assert_fits(compiled: Compiled, name: str) -> None:
    card = ARCHITECTURES[compiled.capability]
    assert compiled.shared_bytes <= card.shared_block, name
    assert compiled.registers <= MOST_REGISTERS, name
    assert compiled.registers * compiled.launch.warps * WARP <= REGISTERS, name


@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_decode_kernels_fit_and_spill_nothing(capability: int) -> None:
    kvs = KVS if capability == 75 else ("int8", "int4")
    for name, launch in decode(capability, kvs):
        compiled = compile_for(launch, capability)
        _assert_fits(compiled, name)
        assert compiled.spilled_bytes == 0, name


@pytest.mark.parametrize("capability", [75, 86, 120])
def test_products_of_several_tokens_fit(capability: int) -> None:
    for name, launch in several(capability):
        compiled = compile_for(launch, capability)
        _assert_fits(compiled, name)
        assert compiled.spilled_bytes == 0, name


@pytest.mark.parametrize("capability", [75, 80, 86, 120])
def test_attention_of_prompts_fits_and_hardly_spills(capability: int) -> None:
    for name, launch in prompts(capability):
        compiled = compile_for(launch, capability)
        _assert_fits(compiled, name)
        assert compiled.spilled_bytes <= 96, name  # beside 1,020 bytes in registers


@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_rounding_kernels_fit_and_spill_nothing(capability: int) -> None:
    """A warp keeps a row of a block in registers."""
    for name, launch in rounding():
        compiled = compile_for(launch, capability)
        _assert_fits(compiled, name)
        assert compiled.spilled_bytes == 0, name
        assert compiled.registers <= 96, name


@pytest.mark.parametrize("capability", [75, 86])
def test_tensor_cores_multiply(capability: int) -> None:
    """Triton since 3.3 uses none on Turing by itself."""
    for rows, name in ((1, "few_rows"), (16, "few_rows"), (512, "matmul")):
        launches = product((4096, 4096), rows, WeightFormat(4, 128), capability)
        (launch,) = (each for each in launches if each.kernel.__name__ == name)
        assert _multiplies_by_tensor_cores(launch, capability)
    assert _multiplies_by_tensor_cores(attention("int8", capability)[1], capability)
    assert _multiplies_by_tensor_cores(attention("int8", capability, 512)[1], capability)


def _multiplies_by_tensor_cores(launch: Launch, capability: int) -> bool:
    return any(name.startswith("HMMA") for name in compile_for(launch, capability).loop)


@pytest.mark.parametrize(("capability", "most"), [(75, 7), (86, 5)])
@pytest.mark.parametrize("bits", [4, 8])
def test_words_are_loaded_and_unpacked_by_one_lane_each(
    bits: int, capability: int, most: int
) -> None:
    """A tile is 8 KiB of words: 16 bytes a load, 4 loads a thread; two tiles are ahead.

    Codes go from where they are loaded to tensor cores without shared memory, in which Turing's
    kernel has the units of rows.
    """
    few_rows, _ = product((4096, 4096), 1, WeightFormat(bits, 128), capability)
    compiled = compile_for(few_rows, capability)
    loads = [name for name in compiled.loop if name.startswith("LDG")]
    assert sum("128" in name for name in loads) >= 8
    assert len(loads) <= 8 + 2 + 8  # words, scales, activations
    assert compiled.shared_bytes <= (32 if capability == 75 else 0)
    assert len(compiled.loop) * WARP * few_rows.warps <= most * 2 * 8192


def test_one_token_reads_each_weight_of_a_book_once() -> None:
    """A tile is 8 KiB of words: 16 bytes a load, 4 loads a thread; 4 more are of float32 scales."""
    matvec, _ = product((4096, 4096), 1, NF4, 86)
    loads = [name for name in compile_for(matvec, 86).loop if name.startswith("LDG.E.128")]
    assert len(loads) == 4 + 4
