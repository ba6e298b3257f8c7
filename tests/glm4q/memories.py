"""Memory for models that no checkpoint holds."""

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.memory.plan import MemoryPlan, Planner, assign_formats, make_plan
from calculator.memory.settings import Settings
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16
from glm4q.kernels.choose import KERNELS
from glm4q.kernels.spec import Kernel
from glm4q.memory.allocation import Memory
from glm4q.model.decoder import CausalLM
from glm4q.model.loader import load_model, serve

ACTIVATION_BITS = {torch.bfloat16: 16, torch.float32: 32}
CPU = torch.device("cpu")


def plan_on_cpu(
    config: ModelConfig,
    room: int,
    *,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    chunk: int | None = None,
    kv: str | None = None,
    draft_tokens: int = 0,
) -> MemoryPlan:
    """A plan for the host alone; the cache in `dtype`, and steps as long as it, if not said."""
    settings = Settings(
        context=room,
        batch=batch,
        prefill_chunk=chunk or room,
        draft_tokens=draft_tokens,
        kv=kv or ("bf16" if dtype == torch.bfloat16 else "fp32"),
        embedding="host",
        compute="host",
        activation_bits=ACTIVATION_BITS[dtype],
    )
    return make_plan(config, assign_formats(config, BF16), settings)


def memory_on_cpu(
    config: ModelConfig,
    room: int,
    *,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    chunk: int | None = None,
    kv: str | None = None,
    draft_tokens: int = 0,
) -> Memory:
    """What that plan lists."""
    plan = plan_on_cpu(
        config, room, dtype=dtype, batch=batch, chunk=chunk, kv=kv, draft_tokens=draft_tokens
    )
    return Memory.allocate(plan, {"host": CPU}, dtype)


def memory_of(
    stored: StoredModel,
    room: int,
    *,
    dtype: torch.dtype = torch.float32,
    kernels: tuple[Kernel, ...] = KERNELS,
    kv: str | None = None,
    batch: int = 1,
) -> Memory:
    """For a model that is loaded from `stored` without a tokenizer."""
    settings = Settings(
        context=room,
        batch=batch,
        prefill_chunk=room,
        kv=kv or ("bf16" if dtype == torch.bfloat16 else "fp32"),
        embedding="host",
        compute="host",
        activation_bits=ACTIVATION_BITS[dtype],
    )
    served = serve(stored, device=CPU, dtype=dtype, kernels=kernels)
    planner = Planner(stored.config, served.formats, served={"host": served})
    return Memory.allocate(planner.plan(settings), {"host": CPU}, dtype)


def load_on_cpu(
    stored: StoredModel,
    *,
    dtype: torch.dtype = torch.float32,
    kernels: tuple[Kernel, ...] = KERNELS,
) -> CausalLM:
    """The whole model on the host, without a tokenizer."""
    return load_model(stored, place=lambda weight: CPU, dtype=dtype, kernels=kernels)


def random_model(config: ModelConfig) -> CausalLM:
    """Weights at random, norms near one."""
    model = CausalLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(float(parameter.dim() == 1), 0.05)
    return model


@torch.inference_mode()
def all_logits(model: CausalLM, input_ids: Tensor, memory: Memory) -> Tensor:
    """Of every new token, float32 [B, T, V]: `CausalLM.forward` makes those of the last only."""
    step = model.run_layers(input_ids, memory)
    normed = model.model.norm(step["hidden_states"], step, step["normed"])
    logits = torch.empty(*input_ids.shape, model.config.vocab_size, dtype=normed.dtype)
    return model.lm_head(normed, step, logits).float()
