"""Loading: what the plan says is what is held; damaged weights are refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError
from calculator.memory.allocator import layer_block_bytes
from calculator.memory.terms import Term
from calculator.model.architecture import weights
from calculator.model.formats import WeightFormat
from glm4q.engine import LLM
from glm4q.kernels.choose import candidates
from glm4q.model.blocks import LayerBlock
from glm4q.model.decoder import CausalLM
from glm4q.model.loader import held_tensors, load_weight
from tests.fixtures import MakeQuantized
from tests.glm4q.memories import load_on_cpu, memory_of, runner_of, weight_kernels

CPU = torch.device("cpu")


def _held_bytes(llm: LLM) -> int:
    tensors = held_tensors(llm.model).values()
    assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors), "one tensor held twice"
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.demo
@pytest.mark.parametrize("kernel", ["auto", "reference"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_plan_of_the_demo_is_what_is_held(
    bits: int,
    dtype: str,
    kernel: str,
    demo_checkpoint: Path,
    quantized_demo: Callable[[int], Path],
) -> None:
    directory = demo_checkpoint if bits == 16 else quantized_demo(bits)
    llm = LLM.load(directory, device="cpu", dtype=dtype, kernel=kernel)
    assert _held_bytes(llm) == llm.plan.weights_bytes
    assert llm.new_runner().memory.cache.nbytes == llm.plan.kv_cache_bytes


@pytest.mark.parametrize("head", [WeightFormat(16), WeightFormat(8, 32)], ids=str)
@pytest.mark.parametrize(
    "linear",
    [WeightFormat(4, 32), WeightFormat(4, 32, zero_bits=4), WeightFormat(8), WeightFormat(8, 32)],
    ids=str,
)
def test_every_buffer_of_the_plan_is_held_by_name(
    linear: WeightFormat, head: WeightFormat, tiny_vocabulary_checkpoint: Path, tmp_path: Path
) -> None:
    from quantize.pipeline import quantize_checkpoint
    from quantize.recipe import Recipe

    stored = StoredModel.open(tiny_vocabulary_checkpoint)
    quantize_checkpoint(stored, tmp_path / "q", Recipe(linear, head))
    stored = StoredModel.open(tmp_path / "q")
    model = load_on_cpu(stored, kernels=candidates("reference"))
    held = {name: tensor.nbytes for name, tensor in held_tensors(model).items()}
    assert held == _planned(stored)


def _planned(stored: StoredModel) -> dict[str, int]:
    from calculator.memory.settings import Settings
    from glm4q.planning.serving import held_formats
    from tests.plans import make_plan

    formats = held_formats(stored.formats, weight_kernels(stored, kernels=candidates("reference")))
    plan = make_plan(stored.config, formats, Settings(context=64))
    terms: tuple[Term, ...] = plan.weights
    return {buffer.name: buffer.bytes for term in terms for buffer in term.buffers}


def _damaged(checkpoint: Path, tmp_path: Path, name: str, value: float) -> Path:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors[name].view(-1)[5] = value
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    return tmp_path


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(
    value: float, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    directory = _damaged(tiny_checkpoint, tmp_path, name, value)
    with pytest.raises(CheckpointError, match=f"{name} holds a number that is not finite"):
        load_on_cpu(StoredModel.open(directory))


def test_v1_and_v2_mixed_up_is_told_apart(quantized_tiny: MakeQuantized) -> None:
    """Read as v2, v1's zero points are one too low; other readers then print "!!!!"."""
    directory = quantized_tiny(WeightFormat(4, 32))
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq_v2"
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="gptq or gptq_v2"):
        load_on_cpu(StoredModel.open(directory))


def test_gptq_v2_loads_to_the_same_weights(quantized_tiny: MakeQuantized) -> None:
    directory = quantized_tiny(WeightFormat(4, 32, zero_bits=4))
    first = _dequantized(directory)
    tensors = load_file(directory / "model.safetensors")
    for name in tensors:
        if name.endswith("qzeros"):
            tensors[name] += 0x11111111
    save_file(tensors, directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq_v2"
    (directory / "config.json").write_text(json.dumps(config))
    assert torch.equal(_dequantized(directory), first)


def _dequantized(directory: Path) -> torch.Tensor:
    from calculator.model.architecture import weights
    from glm4q.weights.checkpoint import read_quantized

    stored = StoredModel.open(directory)
    weight = next(weight for weight in weights(stored.config) if weight.role == "linear")
    return read_quantized(stored, weight).dequantize()


def test_split_gate_and_up_load_as_one(quantized_tiny: MakeQuantized) -> None:
    """GPTQModel stores the halves of gate_up_proj apart."""
    directory = quantized_tiny(WeightFormat(4, 32))
    input_ids = torch.randint(97, (1, 12))
    whole = _logits(directory, input_ids)
    tensors = load_file(directory / "model.safetensors")
    for name in [name for name in tensors if "gate_up_proj" in name]:
        tensor = tensors.pop(name)
        halves = (tensor, tensor) if name.endswith("g_idx") else tensor.chunk(2, dim=-1)
        for half, part in zip(("gate_proj", "up_proj"), halves, strict=True):
            tensors[name.replace("gate_up_proj", half)] = part.clone()
    save_file(tensors, directory / "model.safetensors")
    torch.testing.assert_close(_logits(directory, input_ids), whole)


def _logits(directory: Path, input_ids: torch.Tensor) -> torch.Tensor:
    stored = StoredModel.open(directory)
    model = load_on_cpu(stored)
    return runner_of(model, memory_of(stored, 64))(input_ids)


@pytest.mark.demo
def test_on_the_cpu_the_mapped_file_is_the_model(quantized_demo: Callable[[int], Path]) -> None:
    """Codes and scales are not copied: a second start finds them in the system's file cache."""
    stored = StoredModel.open(quantized_demo(4))
    model = load_on_cpu(stored, dtype=torch.bfloat16, kernels=candidates("reference"))
    files = {str(header.file) for header in stored.tensors.values()}
    copied = [name for name, tensor in held_tensors(model).items() if not _is_mapped(tensor, files)]
    assert copied == []


def _is_mapped(tensor: torch.Tensor, files: set[str]) -> bool:
    for line in Path("/proc/self/maps").read_text().splitlines():
        places, *_, path = line.split(maxsplit=5)
        start, stop = (int(place, 16) for place in places.split("-"))
        if start <= tensor.data_ptr() < stop:
            return path in files
    return False


LOADS_ELSEWHERE = """
import sys
import torch
from pathlib import Path
from calculator.checkpoint.stored import StoredModel
from glm4q.kernels.choose import choose_weight_kernels
from glm4q.model.loader import load_model
from glm4q.memory.process import peak_bytes

stored = StoredModel.open(Path(sys.argv[1]))
for _ in range(2):  # the first time much is imported
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = peak_bytes()
    meta = torch.device("meta")
    kernels = choose_weight_kernels(stored.formats, device=meta, dtype=torch.bfloat16)
    load_model(stored, lambda weight: kernels)
print(peak_bytes() - before)
"""


@pytest.mark.demo
def test_loading_to_another_device_holds_one_tensor_at_a_time(demo_checkpoint: Path) -> None:
    """The device "meta" keeps nothing, as a GPU keeps nothing of the host's memory."""
    ran = subprocess.run(
        [sys.executable, "-c", LOADS_ELSEWHERE, str(demo_checkpoint)],
        capture_output=True,
        text=True,
        check=True,
    )
    stored = StoredModel.open(demo_checkpoint)
    sizes = [header.nbytes for header in stored.tensors.values()]
    assert int(ran.stdout) < max(sizes) + (64 << 20) < sum(sizes)


@pytest.mark.parametrize("linear", [WeightFormat(4, 32), None], ids=str)
def test_weights_of_a_layer_share_one_block(
    linear: WeightFormat | None, quantized_tiny: MakeQuantized, tiny_checkpoint: Path
) -> None:
    """The values are unchanged, and the block is as long as the plan counts it."""
    stored = StoredModel.open(quantized_tiny(linear) if linear else tiny_checkpoint)
    kernels, before = weight_kernels(stored), load_on_cpu(stored)
    of_layer = [weight for weight in weights(stored.config) if weight.layer == 1]
    block = LayerBlock(of_layer, kernels)
    with torch.device("meta"):
        after = CausalLM(stored.config)
    for weight in of_layer:
        load_weight(after, weight.name, stored, weight, kernels, hold=block.hold)
    first, second = held_tensors(before.model.layers[1]), held_tensors(after.model.layers[1])
    assert first.keys() == second.keys()
    for name, tensor in second.items():
        assert torch.equal(tensor, first[name])
        assert tensor.data_ptr() % 64 == 0
    blocks = {tensor.untyped_storage().data_ptr() for tensor in second.values()}
    assert len(blocks) == 1
    (size,) = {tensor.untyped_storage().nbytes() for tensor in second.values()}
    assert size == layer_block_bytes(tensor.nbytes for tensor in second.values())
