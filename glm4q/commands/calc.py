"""`glm4q calc`: does it fit, in which variant, how much is left, how fast."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from calculator.cards.card import find_card
from calculator.errors import OptionError
from calculator.memory.settings import Settings, parse_device
from calculator.memory.workspace import PREFILL_CHUNK
from calculator.options import one_of, parse_size, parse_tokens
from calculator.questions.fit import Wish
from calculator.questions.question import Question
from calculator.questions.solve import KV_CHOICES, max_context
from calculator.questions.subject import find_subject

DEFAULT_CONTEXT = 8192
EXAMPLES = (
    "glm4q calc glm-4-9b-chat --weights int4 --kv int8 --context 128k --gpu 4060",
    "glm4q calc glm-4-9b-chat --weights int4 --gpu 3060 --max-context",
)


def calc(
    model: Annotated[
        str,
        typer.Argument(
            help="A preset such as glm-4-9b-chat, a checkpoint directory, a config.json, or a "
            "Hugging Face id, of which only headers are fetched."
        ),
    ] = "glm-4-9b-chat",
    weights: Annotated[
        str | None,
        typer.Option(help="bf16, int8, int4, nf4 or llm-int8; as published if not given."),
    ] = None,
    group_size: Annotated[
        str | None,
        typer.Option(help="Inputs that share a scale: 32, 64, 128 or channel. 128 if not given."),
    ] = None,
    lm_head: Annotated[
        str | None, typer.Option(help="The output head: bf16 or int8; as published if not given.")
    ] = None,
    embedding: Annotated[
        str | None, typer.Option(help="Where embedding rows lie: gpu or host; gpu if not given.")
    ] = None,
    kv: Annotated[
        str | None,
        typer.Option(
            help="KV cache: bf16, int8, k8v4 (keys INT8, values INT4) or int4; bf16 if not given."
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Tokens of context: 8192, 128k. 8k if not given.")
    ] = None,
    batch: Annotated[
        int,
        typer.Option("--batch", "--concurrency", help="Users at once, each with the context."),
    ] = 1,
    prefill_chunk: Annotated[
        int, typer.Option(help="Prompt tokens in one forward pass.")
    ] = PREFILL_CHUNK,
    gpu: Annotated[
        str | None, typer.Option(help='A card, such as "4060 laptop"; auto asks the driver.')
    ] = None,
    vram: Annotated[str | None, typer.Option(help="The card's memory in GiB: 11.5.")] = None,
    gpus: Annotated[int, typer.Option(help="Cards of that kind that share the model.")] = 1,
    gpu_layers: Annotated[
        int | None, typer.Option(help="Layers on the GPU; the others run on the host.")
    ] = None,
    reserve: Annotated[
        str, typer.Option(help="Memory left to the desktop, in GiB; 600M is MiB.")
    ] = "0",
    margin: Annotated[str, typer.Option(help="Memory left free for safety.")] = "0",
    find_max_context: Annotated[
        bool, typer.Option("--max-context", help="Ask for the most context that the card holds.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each term's formula and its source.")
    ] = False,
    grid: Annotated[
        bool, typer.Option("--grid", help="Show weights x KV x context instead of terms.")
    ] = False,
    cards: Annotated[
        bool, typer.Option("--cards", help="Show the longest context of each variant on each card.")
    ] = False,
    chart: Annotated[
        bool, typer.Option("--chart", help="Show memory over context, a curve a variant.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, in bytes.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, in bytes.")] = False,
    as_markdown: Annotated[bool, typer.Option("--md", help="Print Markdown.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Write the chart as SVG.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write the chart as PNG.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page to try every variant in a browser.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Load the checkpoint, run it, and hold the plan against it."),
    ] = False,
    device: Annotated[str, typer.Option(help="With --verify: auto, cuda or cpu.")] = "auto",
    receipt: Annotated[
        Path | None, typer.Option(help="With --verify: write what was compared as JSON.")
    ] = None,
) -> int:
    """Say what a model takes in memory, term by term, and whether it fits a card.

    Exit code: 0 it fits (or no card was named), 1 it does not, 2 the question is wrong.
    """
    if as_json + as_csv + as_markdown > 1:
        raise OptionError("one of --json, --csv and --md may be given, not several")
    place = parse_device(embedding, "embedding")
    if verify:
        # What runs a model stands above the calculator; only the command line reaches up to it.
        from glm4q.commands.receipt import verify_plan

        tokens = None if context is None else parse_tokens(context)
        wish = Wish(tokens, kv, place, prefill_chunk, gpu_layers)
        return verify_plan(Path(model), wish, device=device, receipt=receipt)
    subject = find_subject(model, weights=weights, group_size=group_size, lm_head=lm_head)
    longest = subject.config.max_position_embeddings
    settings = Settings(
        context=min(DEFAULT_CONTEXT, longest) if context is None else parse_tokens(context),
        batch=batch,
        prefill_chunk=prefill_chunk,
        kv=one_of("kv", "bf16" if kv is None else kv, KV_CHOICES),
        embedding=place or "gpu",
        gpu_layers=gpu_layers,
        display_reserve=parse_size(reserve, "reserve"),
        margin=parse_size(margin, "margin"),
    )
    question = Question(subject, settings, find_card(gpu, vram), gpus, model)
    if find_max_context:
        question = _with_max_context(question)
    question.plan  # noqa: B018 - refuses what does not go together, before anything is written
    # Reports are imported when asked for: a cold start is mostly imports.
    from calculator.report import answers

    table: answers.Table = "grid" if grid else "cards" if cards else "terms"
    answers.write_files(question, svg=svg, png=png, html=html)
    if as_json:
        print(answers.as_json(question, table=table))
    elif as_csv:
        print(answers.as_csv(question, table=table), end="")
    elif as_markdown:
        print(answers.as_markdown(question, explain=explain, table=table), end="")
    else:
        answers.show(question, explain=explain, table=table, chart=chart)
    return 1 if question.margin_bytes is not None and question.margin_bytes < 0 else 0


def _with_max_context(question: Question) -> Question:
    if question.card is None:
        raise OptionError("max context is of a card: name it with gpu or vram")
    most = max_context(question, question.card.usable_bytes)
    # Where not one token fits, one is asked for, and the answer says what lacks.
    return question.with_settings(replace(question.settings, context=max(most, 1)))
