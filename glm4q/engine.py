"""The Python API: a checkpoint directory in, chats out.

>>> llm = LLM.load(Path("glm-4-9b-chat-int4"))  # doctest: +SKIP
>>> for piece in llm.chat().ask("你好"):  # doctest: +SKIP
...     print(piece, end="")
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from calculator.architecture import Weight
from calculator.errors import OptionError
from calculator.plan import MemoryPlan
from calculator.settings import Settings
from calculator.stored import StoredModel
from calculator.workspace import PREFILL_CHUNK
from glm4q.chat.session import ChatSession
from glm4q.chat.template import ChatTemplate
from glm4q.devices import choose_device, choose_dtype
from glm4q.generation_config import read_stop_token_ids
from glm4q.kernels.choose import candidates
from glm4q.loader import load_model, plan_model
from glm4q.memory import Memory, Places
from glm4q.model import CausalLM
from glm4q.tokenizer import Tokenizer

DEFAULT_CONTEXT = 8192


@dataclass(frozen=True)
class LLM:
    """A loaded model with its tokenizer, its template, and the plan that says what it holds."""

    directory: Path
    model: CausalLM
    tokenizer: Tokenizer
    plan: MemoryPlan
    device: torch.device
    dtype: torch.dtype
    stop_token_ids: frozenset[int]

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        context: int | None = None,
        prefill_chunk: int = PREFILL_CHUNK,
        draft_tokens: int = 0,
        kernel: str = "auto",
        progress: Callable[[Weight], None] = lambda weight: None,
    ) -> Self:
        """Load a bf16, INT8 or INT4 checkpoint.

        context: tokens that a conversation has room for; the model's own, at most 8192, if None.
        draft_tokens: guesses from the context that a step verifies; it pays where answers repeat
        what is there.
        Raises OptionError, ConfigError, CheckpointError, TokenizerError or KernelError; options
        are checked before weights are read.
        """
        stored = StoredModel.open(directory)
        kernels = candidates(kernel)
        where = choose_device(device)
        compute = choose_dtype(dtype, where)
        settings = Settings(
            context=_default_context(stored) if context is None else context,
            prefill_chunk=prefill_chunk,
            draft_tokens=draft_tokens,
            kv="bf16" if compute == torch.bfloat16 else "fp32",
            embedding="gpu" if where.type == "cuda" else "host",
            compute="gpu" if where.type == "cuda" else "host",
        )
        plan = plan_model(stored, settings, device=where, dtype=compute, kernels=kernels)
        tokenizer = Tokenizer.from_directory(directory)
        stop_token_ids = read_stop_token_ids(directory, stored.config, tokenizer)
        model = load_model(stored, device=where, dtype=compute, kernels=kernels, progress=progress)
        return cls(directory, model, tokenizer, plan, where, compute, stop_token_ids)

    def new_memory(self) -> Memory:
        """A KV cache and a workspace, as planned: what one conversation needs."""
        places: Places = {"gpu": self.device, "host": torch.device("cpu")}
        return Memory.allocate(self.plan, places, self.dtype)

    def chat(self, system: str | None = None) -> ChatSession:
        """A conversation with a cache of its own. Raises TokenizerError without a template."""
        if system is not None and not system.strip():
            raise OptionError("the system prompt is empty")
        template = ChatTemplate.from_directory(self.directory, self.tokenizer.control_tokens)
        return ChatSession(
            self.model,
            self.tokenizer,
            template,
            self.new_memory(),
            stop_token_ids=self.stop_token_ids,
            system=system,
        )


def _default_context(stored: StoredModel) -> int:
    return min(DEFAULT_CONTEXT, stored.config.max_position_embeddings)
