"""The single inventory: every weight of a model, by name, shape and role.

The plan multiplies it by formats, the recipe matches it, the loader checks checkpoints against it,
and a test demands the same names and shapes of the model's `state_dict()`.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Literal, NamedTuple

from calculator.model.config import ModelConfig

Role = Literal["embedding", "linear", "head", "norm", "bias"]

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


class Weight(NamedTuple):
    """One tensor of the unquantized model; a matrix is [outputs, inputs].

    It is the key of many dictionaries, and a tuple is hashed in no time.
    """

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def numel(self) -> int:
        """The count of numbers that it holds."""
        return prod(self.shape)

    @property
    def module(self) -> str:
        """The name of the module that owns it: the tensor's name without its last part."""
        return self.name.rpartition(".")[0]

    @property
    def layer(self) -> int | None:
        """The decoder layer that it belongs to; None for the embedding, last norm and head."""
        return _layer_number(self.name)

    @property
    def can_be_quantized(self) -> bool:
        """Embedding rows are looked up, norms and biases are small: only matmuls gain."""
        return self.role in ("linear", "head")


@lru_cache(maxsize=4096)
def _layer_number(name: str) -> int | None:
    return int(name.split(".", 3)[2]) if name.startswith("model.layers.") else None


@lru_cache(maxsize=64)
def weights(config: ModelConfig) -> tuple[Weight, ...]:
    """List every weight in the order of the forward pass; a tied head is the embedding itself."""
    return tuple(_all_weights(config))


def _all_weights(config: ModelConfig) -> Iterator[Weight]:
    hidden, vocabulary = config.hidden_size, config.vocab_size
    yield Weight(EMBEDDING, (vocabulary, hidden), "embedding")
    for layer in range(config.num_hidden_layers):
        yield from _layer(config, f"model.layers.{layer}")
    yield Weight("model.norm.weight", (hidden,), "norm")
    if not config.tie_word_embeddings:
        yield Weight(HEAD, (vocabulary, hidden), "head")


def num_parameters(config: ModelConfig) -> int:
    """Count the numbers that the unquantized model holds."""
    return sum(weight.numel for weight in weights(config))


def _layer(config: ModelConfig, prefix: str) -> Iterator[Weight]:
    hidden, intermediate = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim

    def norm(name: str) -> Weight:
        return Weight(f"{prefix}.{name}.weight", (hidden,), "norm")

    def linear(name: str, outputs: int, inputs: int) -> Weight:
        return Weight(f"{prefix}.{name}.weight", (outputs, inputs), "linear")

    yield norm("input_layernorm")
    for name, outputs in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        yield linear(f"self_attn.{name}", outputs, hidden)
        if config.attention_bias:
            yield Weight(f"{prefix}.self_attn.{name}.bias", (outputs,), "bias")
    yield linear("self_attn.o_proj", hidden, queries)
    if config.model_type == "glm4":
        yield norm("post_self_attn_layernorm")
    yield norm("post_attention_layernorm")
    yield linear("mlp.gate_up_proj", 2 * intermediate, hidden)
    yield linear("mlp.down_proj", hidden, intermediate)
    if config.model_type == "glm4":
        yield norm("post_mlp_layernorm")
