"""Memory for models that no checkpoint holds."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.memory.plan import MemoryPlan, Planner
from calculator.memory.settings import Settings
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16, assign_formats
from glm4q.decode.runner import Runner
from glm4q.kernels.attention.attention_spec import AttentionKernel
from glm4q.kernels.choice import Choice
from glm4q.kernels.choose import (
    KERNELS,
    LayersKernels,
    WeightKernels,
    choose_layers_kernels,
    choose_weight_kernels,
)
from glm4q.kernels.layers import LayersKernel, SingleLayers
from glm4q.kernels.spec import Kernel
from glm4q.memory.allocation import Memory, Part
from glm4q.memory.kv.cache import KVCache
from glm4q.model.decoder import CausalLM
from glm4q.model.linear import Linear, QuantLinear
from glm4q.model.loader import load_model
from glm4q.planning.serving import served_weights
from tests.plans import make_plan

ACTIVATION_BITS = {torch.bfloat16: 16, torch.float32: 32}
CPU = torch.device("cpu")


def settings_on_cpu(
    room: int,
    *,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    chunk: int | None = None,
    kv: str | None = None,
    draft_tokens: int = 0,
) -> Settings:
    """Settings for the host alone. The cache has `dtype`, and steps its length, unless given."""
    return Settings(
        context=room,
        batch=batch,
        prefill_chunk=chunk or room,
        draft_tokens=draft_tokens,
        kv=kv or ("bf16" if dtype == torch.bfloat16 else "fp32"),
        embedding="host",
        compute="host",
        activation_bits=ACTIVATION_BITS[dtype],
    )


def plan_on_cpu(config: ModelConfig, room: int, **options: Any) -> MemoryPlan:
    """A plan for the host alone; the options are those of `settings_on_cpu`."""
    return make_plan(config, assign_formats(config, BF16), settings_on_cpu(room, **options))


def memory_on_cpu(
    config: ModelConfig, room: int, *, dtype: torch.dtype = torch.float32, **options: Any
) -> Memory:
    """The memory that this plan lists."""
    plan = plan_on_cpu(config, room, dtype=dtype, **options)
    return Memory.allocate(plan, {"host": CPU}, dtype)


def memory_of(
    stored: StoredModel,
    room: int,
    *,
    dtype: torch.dtype = torch.float32,
    kernels: tuple[Kernel, ...] = KERNELS,
    **options: Any,
) -> Memory:
    """The memory of a model that is loaded from `stored` without a tokenizer."""
    settings = settings_on_cpu(room, dtype=dtype, **options)
    served = served_weights(stored.formats, weight_kernels(stored, dtype=dtype, kernels=kernels))
    planner = Planner(stored.config, served.formats, served={"host": served})
    return Memory.allocate(planner.plan(settings), {"host": CPU}, dtype)


def load_on_cpu(
    stored: StoredModel,
    *,
    dtype: torch.dtype = torch.float32,
    kernels: tuple[Kernel, ...] = KERNELS,
) -> CausalLM:
    """The whole model on the host, without a tokenizer."""
    chosen = weight_kernels(stored, dtype=dtype, kernels=kernels)
    return load_model(stored, lambda weight: chosen)


def weight_kernels(
    stored: StoredModel,
    *,
    dtype: torch.dtype = torch.float32,
    kernels: tuple[Kernel, ...] = KERNELS,
) -> WeightKernels:
    """What serves the weights on the host."""
    return choose_weight_kernels(stored.formats, device=CPU, dtype=dtype, kernels=kernels)


def runner_of(
    model: CausalLM,
    memory: Memory,
    *,
    attention: AttentionKernel | None = None,
    one_by_one: bool = False,
) -> Runner:
    """A model bound to a memory, by the kernels that a plan would choose.

    attention: what attends instead. one_by_one: whether layers run one by one where they could be
    fused.
    """
    chosen = [_layers_kernels(model, memory.cache, part) for part in memory.parts]
    if one_by_one:
        single: Choice[LayersKernel] = Choice(SingleLayers(), ())
        chosen = [replace(each, layers=(each.layers[0], single)) for each in chosen]
    if attention is not None:
        chosen = [
            replace(
                each,
                one_token=(each.one_token[0], Choice(attention, ())),
                several_tokens=(each.several_tokens[0], Choice(attention, ())),
            )
            for each in chosen
        ]
    return Runner(model, memory, chosen)


def _layers_kernels(model: CausalLM, cache: KVCache, part: Part) -> LayersKernels:
    modules = [each for layer in part.layers for each in model.model.layers[layer].modules()]
    linears = [each for each in modules if isinstance(each, Linear | QuantLinear)]
    return choose_layers_kernels(
        model.config,
        kv=cache.kv,
        room=cache.max_seq_len,
        device=part.workspace.block.device,
        linears=frozenset(each.kernel for each in linears),
    )


def prefill(runner: Runner, token_ids: list[int]) -> Tensor:
    """Run tokens into the cache, a chunk at a time. Returns the last logits, [V]."""
    for chunk in torch.tensor([token_ids]).split(runner.memory.chunk, 1):
        logits = runner(chunk)
    return logits[0]


def random_model(config: ModelConfig) -> CausalLM:
    """Weights at random, norms near one."""
    model = CausalLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(float(parameter.dim() == 1), 0.05)
    return model


@torch.inference_mode()
def all_logits(runner: Runner, input_ids: Tensor) -> Tensor:
    """The logits of every new token, float32 [B, T, V]: a runner makes those of the last only."""
    model, step = runner.model, runner.hidden_states(input_ids)
    normed = model.model.norm(step["hidden_states"], step, step["normed"])
    logits = torch.empty(*input_ids.shape, model.config.vocab_size, dtype=normed.dtype)
    return model.lm_head(normed, step, logits).float()


def written(cache: KVCache) -> list[Tensor]:
    """What a cache holds of its tokens, by view; the rest of its memory was never written."""
    return [tensor[:, :, :, : cache.length] for tensor in cache.tensors]
