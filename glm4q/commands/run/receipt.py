"""`--verify` of `glm4q calc` and `glm4q chat`: compare the plan with what is allocated."""

import json
import sys
from pathlib import Path

from rich.table import Table
from rich.text import Text

from calculator.questions.fit import Wish
from calculator.units import counted, human_bytes
from glm4q.engine import LLM
from glm4q.measure.receipt import Receipt, verify
from glm4q.terminal.screen.console import Console


def verify_plan(model: Path, wish: Wish, *, device: str, receipt: Path | None) -> int:
    """Load a checkpoint as wished, and compare what it takes with its plan."""
    with Console(file=sys.stderr).status(Text(f"loading {model}")):
        llm = LLM.load(model, device=device, wish=wish, reserve=0)
    return show_receipt(llm, receipt)


def show_receipt(llm: LLM, receipt: Path | None) -> int:
    """Compare, print, and write the receipt. Return 0 if the plan is true, 1 if it is not."""
    compared = verify(llm, f"glm4q {' '.join(sys.argv[1:])}")
    _print(compared)
    if receipt is not None:
        receipt.write_text(json.dumps(compared.record(), indent=2) + "\n", encoding="utf-8")
        print(f"receipt: {receipt}")
    return 0 if compared.is_true else 1


def _print(receipt: Receipt) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("term", overflow="fold")
    table.add_column("on", overflow="fold")
    for title in ("predicted", "held", "residual"):
        table.add_column(title, justify="right", overflow="fold")
    for line in receipt.lines:
        residual = f"{line.residual:,}" if line.is_true else f"{line.residual:,} !"
        name = f"{line.term} (peak)" if line.is_peak else line.term
        table.add_row(name, line.device, f"{line.predicted:,}", f"{line.held:,}", residual)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120)
    console.print(table)
    if receipt.process_bytes is not None:
        console.print(
            f"the driver says {human_bytes(receipt.process_bytes)} of this process; "
            f"planned {human_bytes(receipt.planned_bytes)}"
        )
    verdict = "the plan is true" if receipt.is_true else "the plan is NOT true"
    console.print(
        f"{verdict}: {receipt.device}, {receipt.dtype}, {counted(receipt.threads, 'thread')}"
    )
