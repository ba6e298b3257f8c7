"""Fleets hold all users, on the fewest cards."""

import pytest

from calculator.errors import OptionError
from calculator.questions.asked import Asked
from calculator.questions.fleet import VLLM_BYTES, Fleet, find_fleet


def fleet(gpu: str, users: int, context: str = "8k", weights: str = "int4") -> Fleet:
    asked = Asked(weights=weights, context=context, users=users, gpu=gpu)
    return find_fleet(asked.question(), users)


@pytest.mark.parametrize(
    ("gpu", "users", "context", "weights"),
    [
        ("3090", 50, "8k", "int4"),
        ("3060", 4, "32k", "int4"),
        ("H100", 200, "32k", "bf16"),
        ("4060", 1, "128k", "bf16"),
    ],
)
def test_all_users_fit_and_one_more_on_a_copy_would_not(
    gpu: str, users: int, context: str, weights: str
) -> None:
    found = fleet(gpu, users, context, weights)
    copy = found.question
    assert found.copies * copy.settings.batch >= users > (found.copies - 1) * copy.settings.batch
    assert copy.margin_bytes is not None
    assert copy.margin_bytes >= 0
    if copy.settings.batch < users:
        asked = Asked(
            weights=weights,
            context=context,
            users=copy.settings.batch + 1,
            gpu=gpu,
            gpus=str(copy.gpus),
            split="tensor" if copy.gpus > 1 else None,
            embedding="gpu",
            margin=f"{VLLM_BYTES >> 20}M",
        )
        margin = asked.question().margin_bytes
        assert margin is not None
        assert margin < 0


def test_small_weights_need_fewer_cards_and_the_command_names_what_was_found() -> None:
    small, large = fleet("3090", 20), fleet("3090", 20, weights="bf16")
    assert small.cards < large.cards or small.question.settings.batch > 10
    arguments = dict(zip(*[iter(small.arguments())] * 2, strict=True))
    assert arguments["--max-model-len"] == "8192"
    assert int(arguments["--tensor-parallel-size"]) * int(arguments["--data-parallel-size"]) == (
        small.cards
    )
    assert 0.9 < float(arguments["--gpu-memory-utilization"]) < 1
    assert f"{small.cards} x RTX 3090" in small.sentences()[0]


def test_what_no_eight_cards_hold_is_refused() -> None:
    with pytest.raises(OptionError, match=r"not even 1 x RTX 3060 .* groups cannot be divided"):
        fleet("3060", 1, "128k")
    with pytest.raises(OptionError, match="not even 8 x GTX 1650 hold"):
        fleet("1650", 1, "128k", weights="bf16")
    with pytest.raises(OptionError, match="name one with --gpu"):
        find_fleet(Asked(context="8k").question(), 1)
