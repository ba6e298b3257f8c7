"""One screen before an entry is made: what will run, what is fetched, the disk and the time."""

from collections.abc import Iterator
from textwrap import fill

from calculator.questions.question import Question
from calculator.report.words import card_words, context_words, variant_words
from calculator.units import counted, human_bytes, human_duration
from glm4q.planning.disk import free_bytes
from quantize.store.choose import Chosen
from quantize.store.entries import PUBLISHED
from quantize.store.making import Making, about_quick
from quantize.store.wider import wider_widths

BYTES_PER_SECOND = (12.5e6 / 2, 12.5e6)
"""A line of 50 to 100 Mbit/s, on which the time of the download is told."""


def proposal(making: Making, chosen: Chosen | None, width: int) -> str:
    """Return what is to be made, and what that takes, in a line for each."""
    rows = [*_rows(making, chosen)]
    indent = " " * (max(len(name) for name, _ in rows) + 4)
    return "\n".join(
        fill(
            words,
            width,
            initial_indent=f"  {name}".ljust(len(indent)),
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, words in rows
    )


def _rows(making: Making, chosen: Chosen | None) -> Iterator[tuple[str, str]]:
    costs, source = making.costs, making.source
    commit = f" at commit {source.commit[:12]}" if source.commit else ""
    yield "source", f"{source.name}{commit}"
    if chosen is not None:
        yield "runs on", _card(chosen.question)
        yield "as", _run(chosen)
    if source.repository is None:
        yield "network", "nothing is fetched: the source is on this machine"
    else:
        low, high = (costs.fetched_bytes / rate for rate in reversed(BYTES_PER_SECOND))
        yield (
            "network",
            f"{human_bytes(costs.fetched_bytes)} in {counted(costs.files, 'file')}, "
            f"{human_duration(low, high)} at 50 to 100 Mbit/s",
        )
    yield "disk", _disk(making)
    if making.origin.method != PUBLISHED:
        yield "memory", f"{human_bytes(costs.memory_bytes)} at most while it is made"
        yield "time", f"{human_duration(*costs.seconds)} on {costs.computes}{_meanwhile(making)}"
        yield "method", _method(making)
        if chosen and not making.is_quick and (wider := wider_widths(chosen.question, source.name)):
            yield "wider", wider


def _card(question: Question) -> str:
    free = human_bytes(question.card.usable_bytes) if question.card else ""
    return f"{card_words(question)}, {free} {question.card.source if question.card else ''}"


def _run(chosen: Chosen) -> str:
    question = chosen.question
    layers = question.settings.gpu_layers
    some = "" if layers is None else f", {layers} layers on the GPU and the others on the host"
    return (
        f"{variant_words(question)}, {context_words(question)}{some}: "
        f"{human_bytes(question.need_bytes)}"
    )


def _disk(making: Making) -> str:
    costs = making.costs
    parts = [f"{human_bytes(costs.output_bytes)} the checkpoint"] if costs.output_bytes else []
    if costs.shard_bytes:
        parts.append(f"{human_bytes(costs.shard_bytes)} files of the source")
    if costs.states_bytes:
        parts.append(f"{human_bytes(costs.states_bytes)} hidden states")
    return (
        f"{human_bytes(costs.disk_bytes)} at most ({', '.join(parts)}) in "
        f"{making.output.parent}; {human_bytes(free_bytes(making.output.parent))} are free"
    )


def _meanwhile(making: Making) -> str:
    return ", while the files come" if making.source.repository else ""


def _method(making: Making) -> str:
    if making.is_quick:
        return f"rtn; {about_quick()}"
    if making.origin.weights == "int4":
        return f"{making.origin.method} on built-in samples; --quick takes less time and loses more"
    return making.origin.method
