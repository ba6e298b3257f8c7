"""The loss that a checkpoint reports of itself is shown, and never invented."""

import json
from pathlib import Path

import pytest

from calculator.checkpoint.quality import measured_loss


def test_a_report_is_read(tmp_path: Path) -> None:
    record = {"held_out": {"perplexity_change": 0.1361, "tokens": 2159}}
    (tmp_path / "quality.json").write_text(json.dumps(record))
    found = measured_loss(str(tmp_path))
    assert found is not None
    assert "perplexity +13.61% over the source on 2,159 held-out tokens" in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"held_out": null}',
        '{"held_out": {"perplexity_change": "1"}}',
        '{"held_out": {"perplexity_change": NaN, "tokens": 3}}',
        '{"held_out": {"perplexity_change": 0.1, "tokens": true}}',
    ],
)
def test_a_damaged_report_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "quality.json").write_text(text)
    assert measured_loss(str(tmp_path)) is None
    assert measured_loss(str(tmp_path / "nowhere")) is None
