"""A decoder layer as four stages: each has linears that share an input, and computes that input.

Walking the stages one by one runs the layer exactly once, and lets each stage be calibrated on what
the quantized stages before it make of the samples (GPTQ's "true sequential").
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from glm4q.memory.workspace import Step
from glm4q.model.attention import Attend
from glm4q.model.decoder import DecoderLayer

Feed = Callable[[DecoderLayer, Tensor, Tensor, Step, Attend], tuple[Tensor, Tensor]]
"""(layer, residual stream [B, T, C], feed of the stage before, step, attention) -> (stream, feed);
what is returned may lie in the step's buffers."""


@dataclass(frozen=True)
class Stage:
    """Linears that share an input, the feed."""

    linears: tuple[str, ...]
    """Their modules within the layer."""
    feed: Feed
    adds_to_stream: bool = False
    """The linear's output is added to the residual stream, normed first in `glm4` models."""
    moves_stream: bool = False
    """The stage before is added to the stream before this one's input is computed."""
    norm: str | None = None
    """The norm that computes the feed; scales of the inputs can be folded into its weight."""


def _attention_input(
    layer: DecoderLayer, x: Tensor, before: Tensor, step: Step, attend: Attend
) -> tuple[Tensor, Tensor]:
    step["hidden_states"].copy_(x)
    return x, layer.attention_input(step)


def _attention_output(
    layer: DecoderLayer, x: Tensor, normed: Tensor, step: Step, attend: Attend
) -> tuple[Tensor, Tensor]:
    return x, layer.self_attn.mix(normed, step, attend)


def _feed_forward_input(
    layer: DecoderLayer, x: Tensor, mixed: Tensor, step: Step, attend: Attend
) -> tuple[Tensor, Tensor]:
    step["hidden_states"].copy_(x)
    layer.add_attended(mixed, step)
    return step["hidden_states"], layer.feed_forward_input(step)


def _feed_forward_output(
    layer: DecoderLayer, x: Tensor, normed: Tensor, step: Step, attend: Attend
) -> tuple[Tensor, Tensor]:
    return x, layer.mlp.gated(normed, step)


STAGES = (
    Stage(
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        _attention_input,
        norm="input_layernorm",
    ),
    Stage(("self_attn.o_proj",), _attention_output, adds_to_stream=True),
    Stage(
        ("mlp.gate_up_proj",),
        _feed_forward_input,
        moves_stream=True,
        norm="post_attention_layernorm",
    ),
    Stage(("mlp.down_proj",), _feed_forward_output, adds_to_stream=True),
)


def leave(layer: DecoderLayer, x: Tensor, gated: Tensor, step: Step) -> Tensor:
    """Compute the residual stream after the layer, [B, T, C], from the last stage's feed."""
    step["hidden_states"].copy_(x)
    layer.add_fed(gated, step)
    return step["hidden_states"]
