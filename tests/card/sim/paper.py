"""GLM-4-9B at its true size on a card that holds nothing: every allocation, and no numbers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.memory.placement import placement
from calculator.memory.plan import CUDA_CONTEXT_BYTES, MemoryPlan, Planner
from calculator.memory.settings import Device, Settings
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat, assign_formats
from calculator.model.presets import PRESETS
from glm4q.decode.runner import Runner
from glm4q.decode.sampling import Sampler, SamplingParams
from glm4q.kernels.choose import KERNELS, WeightKernels, choose_weight_kernels
from glm4q.memory.allocation import Memory
from glm4q.model import loader
from glm4q.model.decoder import CausalLM
from glm4q.planning.plan import layers_kernels
from glm4q.planning.serving import served_weights
from glm4q.weights.packing import QuantizedWeight
from tests.card.sim.device import SimDevice
from tests.card.sim.played import simulated_card
from tests.glm4q.random_weights import BOOK

PLACES: dict[Device, torch.device] = {"gpu": torch.device("cuda"), "host": torch.device("cpu")}
WARM = SamplingParams(temperature=0.8, top_p=0.9, min_p=0.05)


@dataclass(frozen=True)
class PaperModel:
    """Headers of a checkpoint that lies nowhere."""

    config: ModelConfig
    formats: dict[Weight, WeightFormat]


@dataclass(frozen=True)
class PaperRun:
    """What a run of GLM-4-9B takes of a card, in bytes that its driver would see."""

    plan: MemoryPlan
    loading: int
    """The most while weights are loaded."""
    loaded: int
    """When they are."""
    peak: int
    """The most of all, CUDA context included."""

    @property
    def planned(self) -> int:
        return self.plan.device_bytes("gpu")


def run_on_paper(
    card: str,
    linear: WeightFormat,
    head: WeightFormat,
    *,
    expandable: bool = False,
    **settings: Any,
) -> PaperRun:
    """Load, run a prompt's chunk, decode, and sample with every option that takes memory.

    expandable: whether the allocator's segments grow.
    """
    played = simulated_card(card, hollow=True, expandable=expandable)
    with played as (device, _), _hollow_files():
        model, plan, kernels = _load(linear, head, Settings(**settings))
        memory = device.allocator
        loading, loaded = memory.peak_reserved, memory.reserved
        _run(model, plan, kernels)
        return PaperRun(plan, loading, loaded, memory.peak_reserved + CUDA_CONTEXT_BYTES)


def _load(
    linear: WeightFormat, head: WeightFormat, settings: Settings
) -> tuple[CausalLM, MemoryPlan, Mapping[Device, WeightKernels]]:
    config = PRESETS["glm-4-9b-chat"]
    formats = assign_formats(config, linear, head)
    stored = cast(StoredModel, PaperModel(config, formats))
    kernels = {
        device: choose_weight_kernels(formats, device=place, dtype=torch.bfloat16, kernels=KERNELS)
        for device, place in PLACES.items()
    }
    served = {device: served_weights(formats, each) for device, each in kernels.items()}
    plan = Planner(config, served["gpu"].formats, served=served).plan(settings)
    device_of = placement(config, settings)
    model = loader.load_model(stored, lambda weight: kernels[device_of(weight)])
    return model, plan, kernels


def _run(model: CausalLM, plan: MemoryPlan, kernels: Mapping[Device, WeightKernels]) -> None:
    batch = plan.settings.batch
    memory = Memory.allocate(plan, PLACES, torch.bfloat16)
    runner = Runner(model, memory, tuple(layers_kernels(plan, kernels).values()))
    sampler = Sampler(WARM, memory.device)
    for tokens in (memory.chunk, 1, 1, 1):  # plain, recorded, replayed
        logits = runner(torch.zeros(batch, tokens, dtype=torch.int64))
        for row in logits:
            sampler(row)
    SimDevice.current().wait("the end")


@contextmanager
def _hollow_files() -> Iterator[None]:
    """Weights that nothing was written to: the operating system gives them no pages."""

    def read_quantized(stored: PaperModel, weight: Weight, files: object = None) -> QuantizedWeight:
        weight_format, (outputs, inputs) = stored.formats[weight], weight.shape
        groups, bits = weight_format.groups(inputs), weight_format.bits
        scales = torch.float16 if weight_format.scheme == "groups" else torch.float32
        zeros = torch.empty(groups, outputs * bits // 32, dtype=torch.int32)
        return QuantizedWeight(
            bits,
            torch.empty(inputs * bits // 32, outputs, dtype=torch.int32),
            torch.empty(groups, outputs, dtype=scales),
            None if weight_format.symmetric else zeros,
            None,
            BOOK if weight_format.scheme == "nf4" else None,
        )

    def read_weight(stored: PaperModel, weight: Weight, *, files: object = None) -> Tensor:
        return torch.empty(weight.shape, dtype=torch.bfloat16)

    with (
        patch.object(loader, "read_quantized", read_quantized),
        patch.object(loader, "read_weight", read_weight),
    ):
        yield
