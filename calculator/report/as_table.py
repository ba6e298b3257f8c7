"""A plan as a table for a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calculator.architecture import num_parameters
from calculator.plan import Device, MemoryPlan
from calculator.report.units import human_bytes

DEVICE_NAMES: dict[Device, str] = {"gpu": "GPU", "host": "host"}


def plan_as_table(plan: MemoryPlan, model: str) -> RenderableType:
    """Every term with its bytes and formula, the totals, and what was assumed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("term")
    table.add_column("on")
    table.add_column("bytes", justify="right")
    table.add_column("", justify="right")
    table.add_column("formula", style="dim", overflow="fold")
    for term in plan.terms:
        if term.bytes:
            table.add_row(
                term.name,
                DEVICE_NAMES[term.device],
                f"{term.bytes:,}",
                human_bytes(term.bytes),
                f"{term.formula} ({term.source})",
            )
    table.add_section()
    for device, name in DEVICE_NAMES.items():
        if total := plan.device_bytes(device):
            table.add_row(
                f"total {name}",
                name,
                f"{total:,}",
                human_bytes(total),
                style="bold",
                end_section=True,
            )
    return Group(
        Text(f"{model}: {num_parameters(plan.config):,} parameters"), table, _assumed(plan)
    )


def _assumed(plan: MemoryPlan) -> Text:
    settings = plan.settings
    return Text(
        f"assumed: context {settings.context:,} tokens, batch {settings.batch}, prefill chunk "
        f"{settings.prefill_chunk}, KV cache {settings.kv} ({plan.kv_bytes_per_token:,} B a token)"
    )
