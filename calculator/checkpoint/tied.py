"""Decide whether a stored output head is a copy of the embedding or a head of its own."""

import logging
from collections.abc import Set
from pathlib import Path

from calculator.checkpoint.headers import TensorHeader
from calculator.checkpoint.layouts.layout import Tensors
from calculator.checkpoint.names import pieces
from calculator.model.architecture import EMBEDDING, HEAD
from calculator.model.config import ModelConfig

logger = logging.getLogger(__name__)

BYTES_AT_ONCE = 1 << 24


def with_stored_head(
    config: ModelConfig,
    directory: Path,
    tensors: Tensors,
    modules: Set[str],
    *,
    has_data: bool,
) -> ModelConfig:
    """Return the config, untied with a warning if the stored head differs from the embedding.

    transformers would drop such a head and answer by the embedding, without a word.
    """
    (head, *_) = pieces(config, HEAD.removesuffix(".weight"), modules) or (None,)
    (embedding, *_) = pieces(config, EMBEDDING.removesuffix(".weight"), modules) or (None,)
    if not config.tie_word_embeddings or head is None or embedding is None:
        return config
    stored = tensors.get(f"{head.module}.weight")
    rows = tensors.get(f"{embedding.module}.weight")
    if stored and rows and _is_same(stored, rows, has_data=has_data):
        return config
    logger.warning(
        "%s says tie_word_embeddings, yet it holds a head, %s, that differs from the embedding; "
        "the stored head is used",
        directory,
        head.module,
    )
    return config.untied()


def _is_same(one: TensorHeader, other: TensorHeader, *, has_data: bool) -> bool:
    """Return whether two tensors hold the same numbers; without data, whether they could."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if not has_data:
        return True
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.start)
        second.seek(other.start)
        for begin in range(0, one.nbytes, BYTES_AT_ONCE):
            size = min(BYTES_AT_ONCE, one.nbytes - begin)
            if first.read(size) != second.read(size):
                return False
    return True
