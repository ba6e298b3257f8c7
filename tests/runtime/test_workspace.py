"""What a forward pass allocates beyond weights and cache stays under the plan's workspace."""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from calculator.formats import BF16
from calculator.plan import assign_formats, make_plan
from calculator.presets import PRESETS
from calculator.settings import Settings
from glm4q.cache import KVCache
from glm4q.engine import LLM
from glm4q.loader import held_tensors
from glm4q.model import CausalLM


class PeakBytes(TorchDispatchMode):
    """Counts the storages that are alive at once, those given at the start left out."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self._alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        place = storage.data_ptr()
        if place and place not in self._known and place not in self._alive:
            self._alive[place] = storage.nbytes()
            weakref.finalize(storage, self._alive.pop, place, None)
            self.peak = max(self.peak, sum(self._alive.values()))


@pytest.mark.parametrize(
    ("shape", "context", "chunk"),
    [
        ({"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8}, 3000, 512),
        ({"hidden_size": 1024, "intermediate_size": 600, "num_attention_heads": 32}, 3000, 256),
        ({"hidden_size": 512, "intermediate_size": 3000, "num_attention_heads": 4}, 700, 512),
        ({"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8}, 3000, 1),
    ],
)
def test_last_chunk_of_a_full_context(shape: dict[str, Any], context: int, chunk: int) -> None:
    config = replace(
        PRESETS["glm-4-9b-chat"], **shape, num_hidden_layers=2, head_dim=64, vocab_size=2000
    )
    model = CausalLM(config).bfloat16().eval()
    cache = KVCache(config, context, dtype=torch.bfloat16)
    cache.advance(context - chunk)
    input_ids = torch.randint(2000, (1, chunk))
    with PeakBytes([*held_tensors(model).values(), cache.keys, cache.values, input_ids]) as peak:
        model(input_ids, cache)
    settings = Settings(context=context, prefill_chunk=chunk)
    planned = make_plan(config, assign_formats(config, BF16), settings).workspace_bytes
    assert 0.6 * planned < peak.peak <= planned


@pytest.mark.demo
def test_quantized_model(quantized_demo: Callable[[int], Path]) -> None:
    """The reference kernel's dequantized tile is counted too."""
    llm = LLM.load(quantized_demo(4), device="cpu", kernel="reference", context=1500)
    cache = llm.new_cache()
    cache.advance(1500 - 512)
    input_ids = torch.randint(2000, (1, 512))
    held = held_tensors(llm.model).values()
    with PeakBytes([*held, cache.keys, cache.values, input_ids]) as peak:
        llm.model(input_ids, cache)
    assert peak.peak <= llm.plan.workspace_bytes
