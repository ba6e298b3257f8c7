"""Steps of answers that go on beside prompts: every weight is read once for both.

A step of its own for a prompt of ten tokens takes nearly as long as one of a single token, because
both read all weights. Rows that stand beside those of running answers cost only their products.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from glm4q.decode.steps.layer_runs import FusedRun
from glm4q.memory.allocation import Memory
from glm4q.memory.kv.cache import KVCache
from glm4q.model.decoder import CausalLM
from glm4q.model.fused_layers import Mix


class MixedSteps:
    """Runs the newest token of some sequences and several tokens of others in one step.

    Each sequence gets the bits that it gets in a step without the others: kernels of quantized
    weights multiply each row alike, and each kind attends as in a step of its own.
    """

    def __init__(self, model: CausalLM, memory: Memory, layers: FusedRun) -> None:
        """layers: all layers of the model, which lie on one device."""
        self._model, self._layers = model, layers
        self._workspace = memory.parts[0].workspace

    @property
    def most(self) -> int:
        """Rows of a step: one for each new token."""
        return self._workspace.tokens

    @torch.inference_mode()
    def __call__(
        self,
        newest: Tensor,
        decoding: Sequence[KVCache],
        prompts: Tensor,
        prompted: Sequence[KVCache],
    ) -> Tensor:
        """Run the tokens `newest` [S, 1] of the caches `decoding`, and `prompts` [P, T] of others.

        Returns the logits of the last token of each, float32 [S + P, V], good until the next step.
        """
        tokens = prompts.shape[1]
        for cache, new in _with(decoding, 1) + _with(prompted, tokens):
            cache.check_room(new)
        step = self._workspace.mixed_step(
            newest.numel() + prompts.numel(), len(newest) + len(prompts)
        )
        self._model.embed(torch.cat((newest.flatten(), prompts.flatten())), step["hidden_states"])
        alone = self._workspace.step(1, len(newest))
        mix = Mix(len(newest), len(prompts), tokens, alone["partial_sums"].nbytes)
        self._layers.run_mixed(step, mix, [*decoding, *prompted])
        for cache, new in _with(decoding, 1) + _with(prompted, tokens):
            cache.advance(new)
        ends = [len(newest) + tokens * (place + 1) - 1 for place in range(len(prompts))]
        return self._model.logits_of_rows(step, [*range(len(newest)), *ends])


def _with(caches: Sequence[KVCache], tokens: int) -> list[tuple[KVCache, int]]:
    return [(cache, tokens) for cache in caches]
