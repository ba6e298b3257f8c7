"""The GLM decoder, `glm` and `glm4`. Modules carry the checkpoint's own names."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from calculator.config import ModelConfig
from glm4q.cache import LayerCache
from glm4q.layers.attention import Attention, prepare_attention
from glm4q.layers.linear import Linear
from glm4q.layers.mlp import MLP
from glm4q.layers.norm import RMSNorm
from glm4q.memory import Memory
from glm4q.workspace import Step


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); x is the step's own, changed in place."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, step: Step, cache: LayerCache) -> None:
        normed = self.attention_input(step)
        self.add_attended(self.self_attn(normed, step, cache), step)
        self.add_fed(self.mlp(self.feed_forward_input(step), step), step)

    def attention_input(self, step: Step) -> Tensor:  # [B, T, C]
        """The normed residual stream."""
        return self.input_layernorm(step["hidden states"], step, step["normed"])

    def feed_forward_input(self, step: Step) -> Tensor:  # [B, T, C]
        """The residual stream, normed anew."""
        return self.post_attention_layernorm(step["hidden states"], step, step["normed"])

    def add_attended(self, attended: Tensor, step: Step) -> None:
        """Add what attention returned to the residual stream."""
        step["hidden states"].add_(attended)

    def add_fed(self, fed: Tensor, step: Step) -> None:
        """Add what the feed-forward layer returned."""
        step["hidden states"].add_(fed)


class Glm4DecoderLayer(DecoderLayer):
    """GLM-4-0414: what attention and mlp return is normed once more before it is added."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.post_self_attn_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_mlp_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def add_attended(self, attended: Tensor, step: Step) -> None:
        step["hidden states"].add_(self.post_self_attn_layernorm(attended, step, attended))

    def add_fed(self, fed: Tensor, step: Step) -> None:
        step["hidden states"].add_(self.post_mlp_layernorm(fed, step, fed))


LAYERS: dict[str, type[DecoderLayer]] = {"glm": DecoderLayer, "glm4": Glm4DecoderLayer}


class Decoder(nn.Module):
    """Embedding, layers, final norm: everything below the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layer = LAYERS[config.model_type]
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class CausalLM(nn.Module):
    """Token ids in, logits out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @torch.inference_mode()
    def forward(self, input_ids: Tensor, memory: Memory) -> Tensor:
        """Run T new tokens, [B, T], after those in the cache. Logits of the last, float32 [B, V].

        They are good until the next step.
        """
        tokens = input_ids.shape[1]
        caches = memory.cache.reserve(tokens)
        steps = memory.steps(tokens)
        self.begin(input_ids, memory)
        work = partial(self._finish, steps, caches)
        if tokens == 1 and memory.record is not None:
            memory.record(work)
        else:
            work()
        memory.cache.advance(tokens)
        return steps[-1][0]["logits"]

    @torch.inference_mode()
    def run_layers(self, input_ids: Tensor, memory: Memory) -> Step:
        """Run new tokens through all layers. Returns the last step, with what they made of them."""
        tokens = input_ids.shape[1]
        caches = memory.cache.reserve(tokens)
        self.begin(input_ids, memory)
        step = self._through_layers(memory.steps(tokens), caches)
        memory.cache.advance(tokens)
        return step

    def begin(self, input_ids: Tensor, memory: Memory) -> None:
        """Put what is new about a step where its buffers are: the tokens' rows, and their place."""
        steps = memory.steps(input_ids.shape[1])
        for step, _ in steps:
            step["cached"].fill_(memory.cache.length)
        first, _ = steps[0]
        first["hidden states"].copy_(self.embed(input_ids, first, memory))

    def _finish(self, steps: Sequence[tuple[Step, range]], caches: Sequence[LayerCache]) -> None:
        """From embedded tokens to logits, all on buffers that stay where they are."""
        step = self._through_layers(steps, caches)
        self.logits(step["hidden states"][:, -1:], step)

    def _through_layers(
        self, steps: Sequence[tuple[Step, range]], caches: Sequence[LayerCache]
    ) -> Step:
        x = steps[0][0]["hidden states"]
        for step, layers in steps:
            step["hidden states"].copy_(x)
            prepare_attention(self.config, step)
            for layer in layers:
                self.model.layers[layer](step, caches[layer])
            x = step["hidden states"]
        return step

    def embed(self, input_ids: Tensor, step: Step, memory: Memory) -> Tensor:
        """The rows of new tokens, [B, T, C], where the embedding lies."""
        weight, x = self.model.embed_tokens.weight, step["hidden states"]
        if memory.rows is None:
            input_ids = step["token ids"].copy_(input_ids)
        else:
            x = memory.rows[: input_ids.numel()].view(x.shape)
        torch.index_select(weight, 0, input_ids.flatten(), out=x.view(-1, x.shape[-1]))
        return x

    @torch.inference_mode()
    def logits(self, x: Tensor, step: Step) -> Tensor:
        """Of one token of each sequence: x [B, 1, C] -> float32 [B, V]."""
        normed = self.model.norm(x, step, step["normed"][:, :1])
        self.lm_head(normed, step, step["head output"].unsqueeze(1))
        return step["logits"].copy_(step["head output"])
