"""`glm4q calc`: what a model takes in memory, term by term."""

import json
from typing import Annotated

import typer

from calculator.errors import OptionError
from calculator.options import parse_tokens
from calculator.plan import Settings, make_plan
from calculator.subject import find_subject
from calculator.workspace import PREFILL_CHUNK

DEFAULT_CONTEXT = 8192


def calc(
    model: Annotated[
        str, typer.Argument(help="A preset such as glm-4-9b-chat, or a checkpoint directory.")
    ] = "glm-4-9b-chat",
    weights: Annotated[
        str | None, typer.Option(help="bf16, int8 or int4; as published if not given.")
    ] = None,
    group_size: Annotated[
        str | None,
        typer.Option(help="Inputs that share a scale: 32, 64, 128 or channel. 128 if not given."),
    ] = None,
    lm_head: Annotated[
        str | None, typer.Option(help="The output head: bf16 or int8; as published if not given.")
    ] = None,
    embedding: Annotated[str, typer.Option(help="Where embedding rows lie: gpu or host.")] = "gpu",
    kv: Annotated[str, typer.Option(help="KV cache: bf16, int8 or int4.")] = "bf16",
    context: Annotated[
        str | None, typer.Option(help="Tokens of context: 8192, 128k. 8k if not given.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Sequences at once.")] = 1,
    prefill_chunk: Annotated[
        int, typer.Option(help="Prompt tokens in one forward pass.")
    ] = PREFILL_CHUNK,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, in bytes.")] = False,
) -> None:
    """Say what a model takes in memory, term by term, without loading it."""
    subject = find_subject(model, weights=weights, group_size=group_size, lm_head=lm_head)
    longest = subject.config.max_position_embeddings
    settings = Settings(
        context=min(DEFAULT_CONTEXT, longest) if context is None else parse_tokens(context),
        batch=batch,
        prefill_chunk=prefill_chunk,
        kv=_one_of("kv", kv, ("bf16", "int8", "int4")),
        embedding="host" if _one_of("embedding", embedding, ("gpu", "host")) == "host" else "gpu",
    )
    plan = make_plan(subject.config, subject.formats, settings, source=subject.source)
    if as_json:
        from calculator.report.as_json import plan_as_json

        print(json.dumps(plan_as_json(plan, subject.name), indent=2))
        return
    from rich.console import Console

    from calculator.report.as_table import plan_as_table

    Console(highlight=False).print(plan_as_table(plan, subject.name))


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise OptionError(f"{name} must be one of {', '.join(known)}, not {value}")
    return value
