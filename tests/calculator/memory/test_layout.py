"""Steps that are smaller than the largest use the same places; lent buffers are free and fit."""

from dataclasses import replace
from math import prod
from typing import get_args

import pytest

from calculator.memory.arena import Layout, make_arena
from calculator.memory.workspace import (
    LENT,
    BufferName,
    LentUse,
    StepBuffer,
    buffer_for,
)
from calculator.model.presets import PRESETS

CONFIGS = {
    "glm-4-9b": PRESETS["glm-4-9b-chat"],
    "two large heads": replace(
        PRESETS["glm-4-9b-chat"], head_dim=256, num_attention_heads=2, num_key_value_heads=2
    ),
    "many queries a head": replace(PRESETS["glm-4-9b-chat"], head_dim=64, num_key_value_heads=1),
}


@pytest.fixture(params=[(4000, 3, 512, 7), (20, 1, 8, 0), (1, 2, 1, 0)], ids=str)
def layouts(request: pytest.FixtureRequest, config: str) -> tuple[Layout, Layout]:
    room, batch, chunk, draft = request.param
    arena = make_arena(
        CONFIGS[config],
        batch=batch,
        chunk=chunk,
        room=room,
        activation_bytes=2,
        scratch=(1000, 500),
        draft=draft,
    )
    return arena.prefill, arena.decode


def _named(layout: Layout, tokens: int, batch: int) -> dict[BufferName, StepBuffer]:
    return {buffer.name: buffer for buffer in layout.buffers(tokens, batch)}


@pytest.mark.parametrize("config", CONFIGS)
def test_smaller_steps_need_no_more_than_the_largest(layouts: tuple[Layout, Layout]) -> None:
    for layout in layouts:
        shape = layout.shape
        largest = _named(layout, shape.tokens, shape.batch)
        assert largest.keys() == layout.offsets.keys() == set(get_args(BufferName))
        for tokens, batch in {(1, 1), (1, shape.batch), (max(shape.tokens // 2, 1), 1)}:
            for name, buffer in _named(layout, tokens, batch).items():
                assert buffer.alive == largest[name].alive
                assert buffer.bytes(2) <= largest[name].bytes(2), name


@pytest.mark.parametrize(("tokens", "batch"), [(0, 1), (9, 1), (1, 0), (1, 3)])
def test_steps_that_the_plan_has_no_room_for_are_refused(tokens: int, batch: int) -> None:
    arena = make_arena(CONFIGS["glm-4-9b"], batch=2, chunk=8, room=20, activation_bytes=2)
    with pytest.raises(ValueError, match=f"1 to 2 x 1 to 8 tokens, not {batch} x {tokens}"):
        arena.prefill.buffers(tokens, batch)


def test_every_lent_use_is_declared() -> None:
    assert LENT.keys() == set(get_args(LentUse))
    assert not LENT.keys() & set(get_args(BufferName))
    assert all(buffer_for(name) == name for name in get_args(BufferName))


@pytest.mark.parametrize("config", CONFIGS)
def test_lent_buffers_are_alive_and_large_enough(layouts: tuple[Layout, Layout]) -> None:
    for layout in layouts:
        buffers = _named(layout, layout.shape.tokens, layout.shape.batch)
        for use, lent in LENT.items():
            buffer = buffers[lent.buffer]
            assert set(lent.moments) <= set(buffer.alive), use
            if lent.like is not None:
                like = buffers[lent.like]
                assert buffer.dtype == like.dtype, use
                assert prod(buffer.shape) >= prod(like.shape), use
