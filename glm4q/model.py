"""The GLM decoder, `glm` and `glm4`. Modules carry the checkpoint's own names."""

import torch
from torch import Tensor, nn

from calculator.config import ModelConfig
from glm4q.cache import KVCache, LayerCache
from glm4q.layers.attention import Attention
from glm4q.layers.mlp import MLP
from glm4q.layers.norm import RMSNorm
from glm4q.layers.rope import Rotation, rotation


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, by: Rotation, cache: LayerCache) -> Tensor:  # x: [B, T, C]
        x = x + self.self_attn(self.input_layernorm(x), by, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Glm4DecoderLayer(DecoderLayer):
    """GLM-4-0414: what attention and mlp return is normed once more before it is added."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.post_self_attn_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_mlp_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, by: Rotation, cache: LayerCache) -> Tensor:  # x: [B, T, C]
        attended = self.self_attn(self.input_layernorm(x), by, cache)
        x = x + self.post_self_attn_layernorm(attended)
        return x + self.post_mlp_layernorm(self.mlp(self.post_attention_layernorm(x)))


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
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @torch.inference_mode()
    def hidden_states(self, input_ids: Tensor, cache: KVCache) -> Tensor:
        """Run T new tokens, [B, T], after those in the cache. Returns normed states [B, T, C]."""
        tokens = input_ids.shape[1]
        positions = torch.arange(cache.length, cache.length + tokens, device=input_ids.device)
        by = rotation(self.config, positions)
        x = self.model.embed_tokens(input_ids)
        for layer, layer_cache in zip(self.model.layers, cache.reserve(tokens), strict=True):
            x = layer(x, by, layer_cache)
        cache.advance(tokens)
        return self.model.norm(x)

    @torch.inference_mode()
    def forward(self, input_ids: Tensor, cache: KVCache) -> Tensor:
        """Logits of the last position only, float32 [B, V]."""
        return self.logits(self.hidden_states(input_ids, cache)[:, -1])

    @torch.inference_mode()
    def logits(self, hidden_states: Tensor) -> Tensor:
        """float32 [..., V]."""
        return self.lm_head(hidden_states).float()
