"""What a card was measured to do: receipts, which are preferred over the assumed bands.

`make gpu` writes a receipt into the folder FOLDER: docs/first-gpu.md. None is here that no card
has written.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from calculator.cards.gpus import Gpu, find_gpu, other_sizes
from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.json_files import read_json_object

SCHEMA = "glm4q.card/1"
FOLDER = Path(__file__).with_name("receipts")


@dataclass(frozen=True)
class Receipt:
    """The part of a receipt that a speed is computed from."""

    date: str
    card: str
    """The name that the driver reports."""
    memory_bytes: int
    copy_rate: float
    """Bytes a second, read and written, at which the card copies memory to memory."""
    shares: tuple[float, float]
    """The least and the largest share of that rate that a product of one token reached."""


def receipt_of(gpu: Gpu) -> Receipt | None:
    """Return the newest receipt of a card; None where none was written. Raises OptionError."""
    return _receipts(FOLDER).get(gpu.name)


@cache
def _receipts(folder: Path) -> Mapping[str, Receipt]:
    """The newest receipt of each card, by the card's name."""
    read = sorted(map(read_receipt, folder.glob("*.json")), key=lambda receipt: receipt.date)
    listed = ((_listed(receipt), receipt) for receipt in read)
    return {gpu.name: receipt for gpu, receipt in listed if gpu}


def _listed(receipt: Receipt) -> Gpu | None:
    """The card of the list: among those of one name, the one whose memory is nearest.

    None where the list lacks the card.
    """
    try:
        named = find_gpu(receipt.card)
    except OptionError:
        return None
    return min(
        (named, *other_sizes(receipt.card, named)),
        key=lambda gpu: abs(gpu.reported_bytes - receipt.memory_bytes),
    )


def read_receipt(file: Path) -> Receipt:
    """Read a file that `make gpu` wrote. Raises OptionError where it is no such file."""
    raw = read_json_object(file, error=OptionError)
    if raw.get("schema") != SCHEMA:
        raise OptionError(f"{file} is no receipt of a card: its schema is not {SCHEMA}")
    try:
        card = raw["card"]
        shares = [_positive(product["share_of_copy"]) for product in raw["products"]]
        return Receipt(
            _text(raw["date"]),
            _text(card["name"]),
            int(_positive(card["bytes"])),
            _positive(raw["copy_bytes_per_second"]),
            (min(shares), max(shares)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise OptionError(f"{file} is a receipt that lacks a part: {error}") from None


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{value!r} is no number above 0")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
