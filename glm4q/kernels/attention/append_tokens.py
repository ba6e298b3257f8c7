"""What comes before attention: rotate queries and keys by their position, and fill the cache."""

from collections.abc import Callable

from torch import Tensor

from calculator.model.config import ModelConfig
from glm4q.kernels.attention.rope import prepare_rotation, prepare_tile_rotation, rotate_
from glm4q.memory.kv.cache import LayerCache, LayerRows
from glm4q.memory.kv.hadamard import prepare_hadamard
from glm4q.memory.workspace import Step


def prepare_attention(
    config: ModelConfig, step: Step, *, centered: bool = False, hadamard: bool = True
) -> None:
    """Compute what all layers of a step share; "cached" says how many tokens come before it.

    centered: whether the cache stores keys minus their centre. hadamard: whether it stores vectors
    under the Hadamard transform; its matrix takes 19 launches.
    """
    prepare_rotation(config, step)
    if centered:
        prepare_tile_rotation(config, step)
    if hadamard:
        prepare_hadamard(step)
    step["future"].fill_(True).triu_(1)  # [T, T]: a new token comes after the one that asks


def append_tokens(step: Step, cache: LayerCache | LayerRows) -> None:
    """Rotate "q" into "queries", and append "k", rotated, and "v" to the cache."""
    q, k, v = step["q"], step["k"], step["v"]  # [B, T, heads, D]
    half, fresh = step["half_rotated"], step["fresh"]
    rest = cache.center_keys(fresh.copy_(k.transpose(1, 2)))
    cache.append_keys(rotate_(rest, half[:, :, 0], step), step)
    cache.append_values(fresh.copy_(v.transpose(1, 2)), step)
    # The G query heads that share a KV head become rows of one matrix: [B, Hkv, G * T, D].
    shared = q.unflatten(2, (k.shape[2], -1)).permute(0, 2, 3, 1, 4)  # [B, Hkv, G, T, D]
    queries = step["queries"].view(shared.shape).copy_(shared)
    rotate_(queries, half, step).mul_(q.shape[-1] ** -0.5)


def append_and_attend(
    step: Step, cache: LayerCache | LayerRows, attend: Callable[[Step, LayerCache], None]
) -> Tensor:
    """Append the step's tokens, and attend from them, sequence by sequence: to "attended".

    attend: takes "queries" to "mixed", once the tokens are in the cache.
    """
    append_tokens(step, cache)
    for own, row in cache.by_row(step):
        attend(own, row)
    tokens, kv_heads = step.shape.tokens, step["k"].shape[2]
    mixed = step["mixed"].unflatten(2, (-1, tokens))  # [B, Hkv, G, T, D]
    attended = step["attended"]
    attended.unflatten(-1, (kv_heads, -1, mixed.shape[-1])).copy_(mixed.permute(0, 3, 1, 2, 4))
    return attended
