"""The matrices that may differ in width, and what each width takes."""

from collections.abc import Mapping

from calculator.dataclass import dataclass
from calculator.model.architecture import Weight, weights
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16, WeightFormat, parse_format, refuse_unfit
from calculator.questions.widths.knapsack import Level

LINEAR_BITS = (4, 8, 16)
HEAD_BITS = (8, 16)
"""What a head may be; readers other than GPTQModel and vLLM know none that is quantized."""
HEAD_SLOT = "lm_head"
FUSED = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}
"""Linears of a layer that vLLM joins into one matrix, which has one width."""

Bits = Mapping[str, int]
"""Bits of a weight by the names of slots."""
Costs = Mapping[str, Mapping[int, float]]
"""What a slot costs in quality, by its name and its bits. bf16 costs nothing."""


@dataclass(frozen=True)
class Slot:
    """Weights that take one width: a linear, the three that read a layer's input, or the head."""

    name: str
    weights: tuple[Weight, ...]

    @property
    def bits(self) -> tuple[int, ...]:
        """The widths to choose from."""
        return HEAD_BITS if self.name == HEAD_SLOT else LINEAR_BITS


@dataclass(frozen=True)
class Widths:
    """The slots of a model, and the formats that they may take."""

    config: ModelConfig
    group_size: str = "128"
    symmetric: bool = True

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The slots in the order of the forward pass. A head that is the embedding stays it."""
        joined: dict[str, list[Weight]] = {}
        for weight in weights(self.config):
            if weight.can_be_quantized:
                joined.setdefault(slot_of(weight), []).append(weight)
        return tuple(Slot(name, tuple(parts)) for name, parts in joined.items())

    def format(self, bits: int) -> WeightFormat:
        """Return the format of that width."""
        if bits == BF16.bits:
            return BF16
        return parse_format(f"int{bits}", self.group_size, symmetric=self.symmetric)

    def formats(self, bits: Bits) -> dict[Weight, WeightFormat]:
        """Return the format of every weight of the model, where slots have these widths."""
        kinds = {each: self.format(each) for each in {*bits.values(), BF16.bits}}
        return {
            weight: kinds[bits[slot_of(weight)] if weight.can_be_quantized else BF16.bits]
            for weight in weights(self.config)
        }

    def refuse_unfit(self) -> None:
        """Raise OptionError where a shape does not allow one of the widths."""
        for wide in (False, True):
            refuse_unfit(
                self.formats(
                    {slot.name: slot.bits[-2] if wide else slot.bits[0] for slot in self.slots}
                )
            )

    def levels(self, slot: Slot, costs: Costs) -> list[Level]:
        """Return the bytes and the cost of each width of a slot."""
        return [
            Level(
                sum(sum(self.format(bits).parts(weight).values()) for weight in slot.weights),
                costs[slot.name][bits] if bits != BF16.bits else 0.0,
            )
            for bits in slot.bits
        ]


def slot_of(weight: Weight) -> str:
    """Return the name of the slot of a linear or a head; vLLM's name of a module that it joins."""
    prefix = f"model.layers.{weight.layer}."
    if weight.module.removeprefix(prefix) in FUSED:
        return f"{prefix}self_attn.qkv_proj"
    return weight.module
