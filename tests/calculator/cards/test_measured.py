"""A receipt of a card is preferred over the assumed band; what is no receipt is refused by name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_receipt import Product, file_name, record
from calculator.cards import measured
from calculator.cards.card import card_of, gpu_rates
from calculator.cards.gpus import find_gpu
from calculator.cards.roofline import DECODE_EFFICIENCY
from calculator.errors import OptionError
from glm4q.cli import main

CARD = {"name": "NVIDIA GeForce RTX 3060", "capability": "8.6", "bytes": 12_495 << 20}
PRODUCTS = [
    Product("layer", kind, 8 << 20, 1e-4, share)
    for kind, share in (("int4", 0.71), ("int8", 0.88), ("nf4", 0.64))
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of receipts in place of the project's own."""
    monkeypatch.setattr(measured, "FOLDER", tmp_path)
    yield tmp_path
    measured._receipts.cache_clear()


def write(folder: Path, date: str, copy: float, **card: Any) -> Path:
    """A receipt as `make gpu` writes it."""
    made = record({**CARD, **card}, {}, copy, PRODUCTS, {}) | {"date": date}
    path = folder / file_name(made["card"]["name"], date)
    path.write_text(json.dumps(made))
    return path


def test_the_newest_receipt_of_the_card_gives_its_speed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "2027-01-02", 300e9)
    write(folder, "2027-03-04", 320e9)
    write(folder, "2027-05-06", 1e12, name="NVIDIA Prototype")  # no card of the list
    assert gpu_rates(find_gpu("3060 12gb")).bandwidth == 320e9
    smaller, other = gpu_rates(find_gpu("3060 8gb")), gpu_rates(find_gpu("4090"))
    assert smaller.efficiency == other.efficiency == DECODE_EFFICIENCY
    rates = card_of(find_gpu("3060 12gb")).rates
    assert rates is not None
    assert rates.efficiency == (0.64, 0.88)
    assert main(["calc", "--gpu", "3060 12gb", "--context", "32k"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "(64% to 88% of the 320 GB/s at which it copies, as products of one token" in told
    assert "measured on 2027-03-04)" in told


def test_the_page_computes_with_the_receipt(folder: Path, tmp_path: Path) -> None:
    write(folder, "2027-01-02", 300e9)
    page = tmp_path / "calc.html"
    assert main(["calc", "--gpu", "3060 12gb", "--as", "html", "-o", str(page)]) == 0
    assert '"bandwidth":300000000000.0,"efficiency":[0.64,0.88]' in page.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "glm4q.card/2"}, "is no receipt of a card: its schema is not glm4q.card/1"),
        ({"products": []}, "is a receipt that lacks a part"),
        ({"copy_bytes_per_second": 0}, "lacks a part: 0 is no number above 0"),
        ({"copy_bytes_per_second": True}, "lacks a part: True is no number"),
        ({"card": {"name": 3, "bytes": 1}}, "lacks a part: 3 is no text"),
        ({"card": None}, "lacks a part"),
    ],
    ids=str,
)
def test_what_is_no_receipt_is_refused_by_name(
    change: dict[str, Any], message: str, folder: Path
) -> None:
    path = write(folder, "2027-01-02", 300e9)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(OptionError, match=message) as raised:
        gpu_rates(find_gpu("3060"))
    assert str(path) in str(raised.value)


def test_every_receipt_that_is_here_reads() -> None:
    for file in measured.FOLDER.glob("*.json"):
        assert measured.read_receipt(file)
