"""Which kernels serve a model on a device: each is the first of its list that does not refuse."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from calculator.errors import OptionError
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16, FP32, WeightFormat
from calculator.options import one_of
from glm4q.kernels.attention.attention_spec import AttentionKernel, AttentionSpec
from glm4q.kernels.attention.streaming import StreamingAttention
from glm4q.kernels.attention.triton_attention import TritonAttention
from glm4q.kernels.bitsandbytes import BitsAndBytes
from glm4q.kernels.choice import Choice, choose_first
from glm4q.kernels.cpu.attention import NativeAttention
from glm4q.kernels.cpu.native import NAME, Native
from glm4q.kernels.cuda import Lowering
from glm4q.kernels.dense import DENSE, DenseKernel, DenseSpec
from glm4q.kernels.layers import FUSED, LayersKernel, LayersSpec
from glm4q.kernels.norm import NORMS, NormKernel, NormSpec
from glm4q.kernels.reference import Reference
from glm4q.kernels.spec import Kernel, LinearSpec
from glm4q.kernels.torch_operators.torch_int4 import TorchInt4
from glm4q.kernels.torch_operators.torch_int4_cuda import TorchInt4Cuda
from glm4q.kernels.torch_operators.torch_int8 import TorchInt8
from glm4q.kernels.triton_linear import TritonLinear

KERNELS: tuple[Kernel, ...] = (
    Native(),
    TritonLinear(),
    TorchInt4Cuda(),
    TorchInt4(),
    TorchInt8(),
    BitsAndBytes(),
    Reference(),
)
"""Fastest first. The CPU's are measured by benchmarks/kernels.py."""

ACTIVATIONS = ("auto", "int16")
"""What activations that meet codes on a CPU may be rounded to. int8 is what auto takes for 4-bit
weights, and for 8-bit ones it loses more than it is faster."""

ATTENTION: tuple[AttentionKernel, ...] = (
    TritonAttention(Lowering.MMA),
    TritonAttention(Lowering.TURING_MMA),
    TritonAttention(),
    NativeAttention(),
    StreamingAttention(),
)
"""Fastest first."""

NUMBERS = {torch.bfloat16: BF16, torch.float32: FP32}
"""The format of an unquantized weight by the dtype that the model computes in."""


def candidates(name: str, activations: str = "auto") -> tuple[Kernel, ...]:
    """All kernels for "auto", else the one of that name. Raises OptionError.

    activations: the codes to which the native kernel rounds them; other kernels round none.
    """
    one_of("kernel", name, ("auto", *(kernel.name for kernel in KERNELS)))
    one_of("activations", activations, ACTIVATIONS)
    named = tuple(kernel for kernel in KERNELS if name in ("auto", kernel.name))
    if activations != "int16":
        return named
    if name not in ("auto", NAME):
        raise OptionError(f"activations must be auto for the kernel {name}, not {activations}")
    finer = Native(activations="int16")
    return tuple(finer if isinstance(kernel, Native) else kernel for kernel in named)


def choose(spec: LinearSpec, kernels: Sequence[Kernel] = KERNELS) -> Kernel:
    """The first kernel that takes a quantized layer. Raises KernelError with every refusal."""
    return choose_first(spec, kernels).kernel


@dataclass(frozen=True)
class WeightKernels:
    """What computes with the weights of a model on one device; each kernel is chosen once."""

    device: torch.device
    dtype: torch.dtype
    """What activations and unquantized weights are."""
    quantized: Mapping[Weight, tuple[LinearSpec, Choice[Kernel]]]
    dense: Mapping[Weight, tuple[DenseSpec, Choice[DenseKernel]]]
    """Linears whose weights are numbers; the embedding is one where the head is tied to it."""
    norm: tuple[NormSpec, Choice[NormKernel]]

    def held_format(self, weight: Weight) -> WeightFormat:
        """How a weight lies in the memory of the device: what the plan counts."""
        if weight not in self.quantized:
            return NUMBERS[self.dtype]
        spec, choice = self.quantized[weight]
        return choice.kernel.packed_format(spec.weight_format)

    def layer_linears(self, layers: range) -> frozenset[object]:
        """The kernels of all linears of some layers."""
        both: dict[Weight, tuple[Any, Choice[Any]]] = {**self.quantized, **self.dense}
        return frozenset(
            choice.kernel for weight, (_, choice) in both.items() if weight.layer in layers
        )


def choose_weight_kernels(
    formats: Mapping[Weight, WeightFormat],
    *,
    device: torch.device,
    dtype: torch.dtype,
    kernels: Sequence[Kernel] = KERNELS,
) -> WeightKernels:
    """Choose a kernel for every weight. Raises KernelError.

    kernels: those for quantized weights that may be chosen.
    """
    choices = _Choices()
    quantized, dense = {}, {}
    tied = all(weight.role != "head" for weight in formats)
    for weight, weight_format in formats.items():
        if weight_format.is_quantized:
            outputs, inputs = weight.shape
            spec = LinearSpec(outputs, inputs, weight_format, device)
            quantized[weight] = spec, choices.of(spec, kernels)
        elif weight.can_be_quantized or (tied and weight.role == "embedding"):
            outputs, inputs = weight.shape
            own = DenseSpec(outputs, inputs, dtype, device)
            dense[weight] = own, choices.of(own, DENSE)
    norm = NormSpec(dtype, device)
    return WeightKernels(device, dtype, quantized, dense, (norm, choose_first(norm, NORMS)))


@dataclass
class _Choices:
    """Layers are alike: what was chosen for one serves all of its kind."""

    _made: dict[Any, Choice[Any]] = field(default_factory=dict)

    def of(self, spec: Any, kernels: Sequence[Any]) -> Choice[Any]:
        if spec not in self._made:
            self._made[spec] = choose_first(spec, kernels)
        return self._made[spec]


@dataclass(frozen=True)
class LayersKernels:
    """What runs the layers of one device, once the cache's format is known."""

    one_token: tuple[AttentionSpec, Choice[AttentionKernel]]
    several_tokens: tuple[AttentionSpec, Choice[AttentionKernel]]
    layers: tuple[LayersSpec, Choice[LayersKernel]]

    def choices(self) -> Iterator[tuple[Any, Choice[Any]]]:
        """Every choice, and what it was made for."""
        yield from (self.one_token, self.several_tokens, self.layers)


def choose_layers_kernels(
    config: ModelConfig, *, kv: str, room: int, device: torch.device, linears: frozenset[object]
) -> LayersKernels:
    """Choose what attends, and how the layers of a device run.

    kv: the cache's format. room: tokens of each sequence that it holds. linears: the kernels of the
    layers' linears.
    """
    one, several = (AttentionSpec(config, kv, room, device, each) for each in (False, True))
    layers = LayersSpec(linears, one)
    return LayersKernels(
        (one, choose_first(one, ATTENTION)),
        (several, choose_first(several, ATTENTION)),
        (layers, choose_first(layers, FUSED)),
    )
