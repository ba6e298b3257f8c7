"""Measure what attention makes of errors in the outputs of q_proj and k_proj.

Most errors change little: what shifts all scores of a token alike is lost in the softmax, and what
is orthogonal to all keys, in their product. So the rows of a head can make up for each other's
rounding errors (quantize.methods.heads), if it is known which errors count together.

An error e of a head's outputs at a token changes what o_proj returns by J e. Let a probe p be a
vector of independent random numbers there. The gradient of its product with what o_proj returns is
g = J^T p, and the mean of g g^T over probes is J^T J. So one pass back through attention tells it,
without the rest of the model.

The size of g also tells at which tokens an error counts. For keys these are few: most of the
attention goes to the first token and some others. Errors of values are mixed by the same shares of
attention before anything reads them, so that what counts for v_proj are its inputs as mixed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from calculator.model.config import ModelConfig
from glm4q.model.decoder import DecoderLayer
from glm4q.model.linear import Linear
from quantize.calibrate.rotation import Rotation


@dataclass(frozen=True)
class Measured:
    """What attention makes of one sample."""

    sizes: dict[str, Tensor]
    """The size of each token's gradients, float32 [T], by the module within the layer."""
    shares: Tensor
    """The shares of attention of one head, float32 [T, T]: each row sums to 1."""


@dataclass(frozen=True)
class AttentionErrors:
    """Sums over tokens of g g^T, for each head of q_proj and k_proj."""

    config: ModelConfig
    rotation: Rotation
    sums: Mapping[str, Tensor]
    """float32 [heads, D, D], by the module within a layer."""

    @classmethod
    def zeros(cls, config: ModelConfig, rotation: Rotation) -> "AttentionErrors":
        """Sums over no token yet."""
        size, device = config.head_dim, rotation.cos.device
        heads = {
            "self_attn.q_proj": config.num_attention_heads,
            "self_attn.k_proj": config.num_key_value_heads,
        }
        sums = {
            name: torch.zeros(count, size, size, device=device) for name, count in heads.items()
        }
        return cls(config, rotation, sums)

    def add(self, layer: DecoderLayer, x: Tensor, normed: Tensor, seed: int) -> Measured:
        """Count the tokens of a sample: the stream before the layer, and what q_proj reads, [T, C].

        A token's probe is divided by the root mean square of its stream, as the norms to come do.
        seed: of the probes; it also chooses the head whose shares are returned, each in its turn.
        """
        generator = torch.Generator().manual_seed(seed)
        probe = torch.randn(x.shape, generator=generator).to(x.device)
        probe /= x.float().square().mean(-1, keepdim=True).sqrt().clamp(min=1e-20)
        q, k, v = (self._heads(layer, name, normed) for name in "qkv")
        q, k = self.rotation.rotate(q), self.rotation.rotate(k)
        by_mixed = probe.to(normed.dtype) @ _linear(layer, "o").weight
        sizes = {}
        gradients = score_gradients(q, k, v, self._split(by_mixed))
        for (name, total), gradient in zip(self.sums.items(), gradients, strict=True):
            g = self.rotation.back.rotate(gradient)
            total.baddbmm_(g.mT, g)
            sizes[name] = g.square().sum((0, 2)).sqrt()
        head = seed % len(q)
        return Measured(sizes, attention_shares(q[head], k[head * len(k) // len(q)]))

    def _heads(self, layer: DecoderLayer, name: str, normed: Tensor) -> Tensor:
        linear = _linear(layer, name)
        return self._split(F.linear(normed, linear.weight, linear.bias))

    def _split(self, outputs: Tensor) -> Tensor:
        """[T, heads * D] -> float32 [heads, T, D]."""
        return outputs.unflatten(-1, (-1, self.config.head_dim)).transpose(0, 1).float()


def score_gradients(q: Tensor, k: Tensor, v: Tensor, by_mixed: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients by rotated queries and keys, from those by what the heads mixed.

    q, by_mixed: float32 [heads, T, D]; k, v: [key-value heads, T, D]. The scores of the heads that
    share keys and values are in memory at a time.
    """
    shared, scale = len(q) // len(k), q.shape[-1] ** -0.5
    by_q, by_k = torch.empty_like(q), torch.empty_like(k)
    for place, (key, value) in enumerate(zip(k, v, strict=True)):
        heads = slice(place * shared, (place + 1) * shared)
        shares = attention_shares(q[heads], key)
        by_scores = by_mixed[heads] @ value.T
        by_scores -= (by_scores * shares).sum(-1, keepdim=True)
        by_scores *= shares.mul_(scale)
        by_q[heads] = by_scores @ key
        by_k[place] = (by_scores.mT @ q[heads]).sum(0)
    return by_q, by_k


def attention_shares(q: Tensor, k: Tensor) -> Tensor:
    """How much each token attends to itself and to those before it, [..., T, T]; k: [T, D]."""
    scores = (q @ k.T) * q.shape[-1] ** -0.5
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill_(hidden, -torch.inf).softmax(-1)


def _linear(layer: DecoderLayer, name: str) -> Linear:
    linear = layer.get_submodule(f"self_attn.{name}_proj")
    assert isinstance(linear, Linear)
    return linear
