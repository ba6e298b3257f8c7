"""The GLM decoder, `glm` and `glm4`. Modules carry the checkpoint's own names."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from calculator.model.config import ModelConfig
from glm4q.memory.workspace import Step
from glm4q.model.attention import Attend, Attention
from glm4q.model.linear import Linear
from glm4q.model.mlp import MLP
from glm4q.model.norm import RMSNorm


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); x is "hidden_states", changed in place."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, step: Step, attend: Attend) -> None:
        self.add_attended(self.self_attn.mix(self.attention_input(step), step, attend), step)
        self.add_fed(self.mlp.gated(self.feed_forward_input(step), step), step)

    def attention_input(self, step: Step) -> Tensor:  # [B, T, C]
        """Norm the residual stream for attention."""
        return self.input_layernorm(step["hidden_states"], step, step["normed"])

    def feed_forward_input(self, step: Step) -> Tensor:  # [B, T, C]
        """Norm the residual stream for the feed-forward layer."""
        return self.post_attention_layernorm(step["hidden_states"], step, step["normed"])

    def add_attended(self, mixed: Tensor, step: Step) -> None:
        """Project what the heads mixed back, and add it to the residual stream."""
        self.self_attn.o_proj.add(mixed, step, step["hidden_states"], step["delta"])

    def add_fed(self, gated: Tensor, step: Step) -> None:
        """Project what the feed-forward layer gated back, and add it."""
        self.mlp.down_proj.add(gated, step, step["hidden_states"], step["delta"])


class Glm4DecoderLayer(DecoderLayer):
    """GLM-4-0414 norms what attention and mlp return once more before it is added."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.post_self_attn_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_mlp_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def add_attended(self, mixed: Tensor, step: Step) -> None:
        attended = self.self_attn.o_proj(mixed, step, step["delta"])
        step["hidden_states"].add_(self.post_self_attn_layernorm(attended, step, attended))

    def add_fed(self, gated: Tensor, step: Step) -> None:
        fed = self.mlp.down_proj(gated, step, step["delta"])
        step["hidden_states"].add_(self.post_mlp_layernorm(fed, step, fed))


LAYERS: dict[str, type[DecoderLayer]] = {"glm": DecoderLayer, "glm4": Glm4DecoderLayer}


class Decoder(nn.Module):
    """Everything below the head: embedding, layers, final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layer = LAYERS[config.model_type]
        # nn.Embedding alone would initialise at random, which imports for a second.
        self.embed_tokens = nn.Embedding.from_pretrained(
            torch.empty(config.vocab_size, config.hidden_size)
        )
        self.layers = nn.ModuleList(layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class CausalLM(nn.Module):
    """Token ids in, logits out: embed, run the layers, norm, head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def embed(self, token_ids: Tensor, out: Tensor) -> Tensor:  # [B, T] -> [B, T, C]
        """Look up the rows of tokens, on the device where the embedding lies."""
        weight = self.model.embed_tokens.weight
        torch.index_select(weight, 0, token_ids.flatten(), out=out.view(-1, out.shape[-1]))
        return out

    def run_layers(self, layers: Iterable[int], step: Step, attend: Iterable[Attend]) -> None:
        """Take the step's "hidden_states" through some layers, each with its own attention."""
        for layer, attend_there in zip(layers, attend, strict=True):
            self.model.layers[layer](step, attend_there)

    def logits(self, step: Step, last: int = 1, stop: int | None = None) -> Tensor:
        """Compute the logits of the last tokens of each sequence: float32 [B * last, V].

        stop: the number of tokens, where others come after them that nobody asks about.
        """
        x = step["hidden_states"][:, :stop][:, -last:]
        return self._head(step["normed"].view(-1)[: x.numel()].view(x.shape).copy_(x), step)

    def logits_of_rows(self, step: Step, rows: Sequence[int]) -> Tensor:
        """Compute the logits of some of all tokens of a step, in this order: float32 [N, V]."""
        x = step["hidden_states"].view(-1, self.config.hidden_size)
        chosen = step["normed"].view(x.shape)[: len(rows)]
        torch.index_select(x, 0, torch.tensor(rows, device=x.device), out=chosen)
        return self._head(chosen.unsqueeze(0), step)

    def _head(self, x: Tensor, step: Step) -> Tensor:
        normed = self.model.norm(x, step, x)
        rows = x.shape[0] * x.shape[1]
        output, logits = step["head_output"][:rows], step["logits"][:rows]
        if self.lm_head.widens(normed):  # bfloat16 would round near logits to one number
            return self.lm_head(normed, step, logits)
        return logits.copy_(self.lm_head(normed, step, output))
