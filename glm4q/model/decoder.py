"""The GLM decoder, `glm` and `glm4`. Modules carry the checkpoint's own names."""

from collections.abc import Sequence
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from calculator.model.config import ModelConfig
from glm4q.memory.allocation import Memory
from glm4q.memory.kv.cache import KVCache, LayerCache, LayerRows, reserve
from glm4q.memory.workspace import Step
from glm4q.model.attention import Attention, prepare_attention
from glm4q.model.fused_layers import FusedLayers
from glm4q.model.linear import Linear
from glm4q.model.mlp import MLP
from glm4q.model.norm import RMSNorm
from glm4q.model.rope import prepare_rotation


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); x is the step's own, changed in place."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, step: Step, cache: LayerCache | LayerRows) -> None:
        normed = self.attention_input(step)
        self.add_attended(self.self_attn(normed, step, cache), step)
        self.add_fed(self.mlp(self.feed_forward_input(step), step), step)

    def attention_input(self, step: Step) -> Tensor:  # [B, T, C]
        """The normed residual stream."""
        return self.input_layernorm(step["hidden_states"], step, step["normed"])

    def feed_forward_input(self, step: Step) -> Tensor:  # [B, T, C]
        """The residual stream, normed anew."""
        return self.post_attention_layernorm(step["hidden_states"], step, step["normed"])

    def add_attended(self, attended: Tensor, step: Step) -> None:
        """Add what attention returned to the residual stream."""
        step["hidden_states"].add_(attended)

    def add_fed(self, fed: Tensor, step: Step) -> None:
        """Add what the feed-forward layer returned."""
        step["hidden_states"].add_(fed)


class Glm4DecoderLayer(DecoderLayer):
    """GLM-4-0414: what attention and mlp return is normed once more before it is added."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.post_self_attn_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_mlp_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def add_attended(self, attended: Tensor, step: Step) -> None:
        step["hidden_states"].add_(self.post_self_attn_layernorm(attended, step, attended))

    def add_fed(self, fed: Tensor, step: Step) -> None:
        step["hidden_states"].add_(self.post_mlp_layernorm(fed, step, fed))


LAYERS: dict[str, type[DecoderLayer]] = {"glm": DecoderLayer, "glm4": Glm4DecoderLayer}


class Decoder(nn.Module):
    """Embedding, layers, final norm: everything below the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layer = LAYERS[config.model_type]
        self.embed_tokens = nn.Embedding.from_pretrained(
            torch.empty(config.vocab_size, config.hidden_size)  # at random, it imports for a second
        )
        self.layers = nn.ModuleList(layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class CausalLM(nn.Module):
    """Token ids in, logits out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self._fused: WeakKeyDictionary[KVCache, list[FusedLayers | None]] = WeakKeyDictionary()
        self.model = Decoder(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @torch.inference_mode()
    def forward(self, input_ids: Tensor, memory: Memory, last: int = 1) -> Tensor:
        """Run T new tokens, [B, T], after those in the cache.

        Returns the logits of the `last` tokens of each sequence, float32 [B * last, V]: of one, or
        of as many as a decoding step has. They are good until the next step.
        """
        tokens = input_ids.shape[1]
        caches = reserve(memory.caches, tokens)
        self.begin(input_ids, memory)
        work = partial(self._finish, memory, caches, tokens, last)
        if tokens == 1 and memory.record is not None:
            memory.record(work)
        else:
            work()
        memory.advance(tokens)
        step, _ = memory.steps(tokens)[-1]
        return step["logits"][: last * step.shape.batch]

    @torch.inference_mode()
    def run_layers(self, input_ids: Tensor, memory: Memory) -> Step:
        """Run new tokens through all layers. Returns the last step, with what they made of them."""
        tokens = input_ids.shape[1]
        caches = reserve(memory.caches, tokens)
        self.begin(input_ids, memory)
        step = self._through_layers(memory, caches, tokens)
        memory.advance(tokens)
        return step

    def begin(self, input_ids: Tensor, memory: Memory) -> None:
        """Put what is new about a step where its buffers are: the tokens' rows, and their place."""
        steps = memory.steps(input_ids.shape[1])
        for step, _ in steps:
            for own, cache in zip(memory.row_steps(step), memory.caches, strict=True):
                own["cached"].fill_(cache.length)
        first, _ = steps[0]
        first["hidden_states"].copy_(self.embed(input_ids, first, memory))

    def _finish(
        self, memory: Memory, caches: Sequence[LayerCache | LayerRows], tokens: int, last: int
    ) -> None:
        """From embedded tokens to logits, all on buffers that stay where they are."""
        step = self._through_layers(memory, caches, tokens)
        self.logits(step["hidden_states"][:, -last:], step)

    def _through_layers(
        self, memory: Memory, caches: Sequence[LayerCache | LayerRows], tokens: int
    ) -> Step:
        steps = memory.steps(tokens)
        x = steps[0][0]["hidden_states"]
        for (step, layers), fused in zip(steps, self._fused_layers(memory), strict=True):
            step["hidden_states"].copy_(x)
            if fused is not None:
                if self.config.rope_scaling is not None:
                    for own in memory.row_steps(step):
                        prepare_rotation(self.config, own)
                fused.run(step, [each for cache in memory.caches for each in cache.sequences])
            else:
                for own, cache in zip(memory.row_steps(step), memory.caches, strict=True):
                    prepare_attention(self.config, own, centered=cache.centered)
                for layer in layers:
                    self.model.layers[layer](step, caches[layer])
            x = step["hidden_states"]
        return step

    def _fused_layers(self, memory: Memory) -> list[FusedLayers | None]:
        """Of each part of the memory; made at its first step."""
        cache = memory.caches[0].whole
        if cache not in self._fused:
            self._fused[cache] = [
                FusedLayers.of(self.config, [self.model.layers[i] for i in part.layers], stores)
                for part, stores in zip(memory.parts, cache.stores, strict=True)
            ]
        return self._fused[cache]

    def embed(self, input_ids: Tensor, step: Step, memory: Memory) -> Tensor:
        """The rows of new tokens, [B, T, C], where the embedding lies."""
        weight, x = self.model.embed_tokens.weight, step["hidden_states"]
        if memory.rows is None:
            input_ids = step["token_ids"].copy_(input_ids)
        else:
            x = memory.rows[: input_ids.numel()].view(x.shape)
        torch.index_select(weight, 0, input_ids.flatten(), out=x.view(-1, x.shape[-1]))
        return x

    @torch.inference_mode()
    def logits(self, x: Tensor, step: Step) -> Tensor:
        """Of the last tokens of each sequence: x [B, T, C] -> float32 [B * T, V]."""
        # Kernels take rows without gaps, also where only the last tokens of each sequence are here.
        rows_of_x = step["normed"].flatten(0, 1)[: x.shape[0] * x.shape[1]].view(x.shape)
        normed = self.model.norm(x, step, rows_of_x)
        rows = x.shape[0] * x.shape[1]
        output, logits = step["head_output"][:rows], step["logits"][:rows]
        if self.lm_head.widens(normed):  # bfloat16 would round near logits to one number
            return self.lm_head(normed, step, logits)
        return logits.copy_(self.lm_head(normed, step, output))
