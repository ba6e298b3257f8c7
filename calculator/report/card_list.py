"""The list of cards that are known."""

import json

from calculator.cards.gpus import NEEDED, Gpu, matching_gpus
from calculator.report.sheets import Sheet
from calculator.units import counted, human_bytes


def show_cards(word: str | None, form: str) -> int:
    """Print the cards whose name has the word, or all. Returns 1 where there is none."""
    gpus = matching_gpus(word)
    if form == "json":
        print(json.dumps([_record(gpu) for gpu in gpus], indent=2))
    elif form == "csv":
        from calculator.report.csv_text import records_as_csv

        print(records_as_csv([_record(gpu) for gpu in gpus]), end="")
    else:
        from calculator.report.terminal import make_console, print_sheet

        console = make_console()
        print_sheet(console, cards_list_sheet(gpus))
        if any(not gpu.runs_glm4q for gpu in gpus):
            console.print(
                f"* glm4q's kernels need {NEEDED}: these cards serve its GGUF export in llama.cpp "
                "(glm4q export CKPT --to gguf)"
            )
    return 0 if gpus else 1


def cards_list_sheet(gpus: tuple[Gpu, ...]) -> Sheet:
    """The cards with what matters of them."""
    numbers = ("memory", "GB/s", "power", "launch price")
    return Sheet(
        counted(len(gpus), "card"),
        ("card", "kind", *numbers, "year"),
        tuple(
            (
                gpu.name if gpu.runs_glm4q else f"{gpu.name} *",
                gpu.kind,
                human_bytes(gpu.reported_bytes),
                f"{gpu.bandwidth / 1e9:,.0f}",
                f"{gpu.tdp_watts} W",
                f"${gpu.launch_usd:,}" if gpu.launch_usd else "",
                str(gpu.year),
            )
            for gpu in gpus
        ),
        frozenset(numbers),
    )


def _record(gpu: Gpu) -> dict[str, object]:
    return {
        "name": gpu.name,
        "vendor": gpu.vendor,
        "kind": gpu.kind,
        "memory_gb": gpu.memory_gb,
        "reported_bytes": gpu.reported_bytes,
        "bandwidth": gpu.bandwidth,
        "tdp_watts": gpu.tdp_watts,
        "launch_usd": gpu.launch_usd,
        "year": gpu.year,
        "runs_glm4q": gpu.runs_glm4q,
        "source": gpu.source,
    }
