"""The workspace of forward passes through single layers, each from position 0."""

import torch

from calculator.memory.arena import make_arena
from calculator.memory.scratch import KernelNeeds
from calculator.model.config import ModelConfig
from glm4q.kernels.attention.append_tokens import prepare_attention
from glm4q.kernels.attention.attention_spec import AttentionSpec
from glm4q.kernels.choice import choose_first
from glm4q.kernels.choose import ATTENTION
from glm4q.memory.kv.cache import LayerCache
from glm4q.memory.workspace import Step, Workspace
from glm4q.model.attention import Attend


def pass_workspace(
    config: ModelConfig,
    *,
    batch: int,
    tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    needs: KernelNeeds = KernelNeeds(),  # noqa: B008 - immutable
) -> Workspace:
    """Allocate a workspace for `batch` sequences of `tokens` tokens at most, without a head."""
    arena = make_arena(
        config,
        batch=batch,
        chunk=tokens,
        room=tokens,
        activation_bytes=dtype.itemsize,
        scratch=(needs.scratch_bytes, needs.scratch_bytes),
        head=False,
    )
    return Workspace(arena, dtype=dtype, device=device)


def ready_step(config: ModelConfig, workspace: Workspace, tokens: int, batch: int) -> Step:
    """Prepare a step from position 0 for all layers."""
    step = workspace.step(tokens, batch)
    step["cached"].zero_()
    prepare_attention(config, step)
    return step


def attention_without_cache(config: ModelConfig, tokens: int, device: torch.device) -> Attend:
    """Attention among the tokens of one step, at most so many, by the best kernel of the device."""
    spec = AttentionSpec(config, "fp32", tokens, device, several=tokens > 1)
    kernel = choose_first(spec, ATTENTION).kernel
    return lambda step: kernel(step, LayerCache.empty(step))
