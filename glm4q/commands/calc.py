"""`glm4q calc`: what runs on a card, in which variant, how much is left, how fast."""

from pathlib import Path
from typing import Annotated

import typer

from calculator.errors import OptionError
from calculator.memory.settings import parse_device
from calculator.memory.workspace import PREFILL_CHUNK
from calculator.options import one_of, parse_tokens
from calculator.questions.answer import Answer, find_answer
from calculator.questions.asked import Asked
from calculator.questions.solve import KV_CHOICES
from calculator.report import answers
from glm4q.commands.options import shared as options

EXAMPLES = (
    "glm4q calc --gpu 4070",
    "glm4q calc glm-4-9b-chat --gpu 4060 --context 128k --kv int8",
    "glm4q calc --gpus 3090,3060 --users 8",
    "glm4q calc --gpu 4060 --as html -o calc.html",
)
BEST = "the best for the card"
MODEL, CARD, OUTPUT, RUN = "The model", "The card", "The answer", "Compare with a run"


def calc(
    model: Annotated[
        str,
        typer.Argument(
            help="A preset such as glm-4-9b-chat, a checkpoint directory, a config.json, or a "
            "Hugging Face id, of which only headers are fetched."
        ),
    ] = "glm-4-9b-chat",
    weights: Annotated[
        str | None, options.weights(f"{BEST}; without a card as published", panel=MODEL)
    ] = None,
    group_size: Annotated[str | None, options.group_size(panel=MODEL)] = None,
    lm_head: Annotated[str | None, options.lm_head(BEST, panel=MODEL)] = None,
    embedding: Annotated[
        str | None, options.embedding(f"{BEST}; without a card gpu", panel=MODEL)
    ] = None,
    kv: Annotated[
        str | None, options.kv(f"{BEST}; without a card bf16", KV_CHOICES, panel=MODEL)
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            help="Tokens of context: 8192, 128k. As long as the card holds if not given; without "
            "a card 8k.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    users: Annotated[
        int,
        typer.Option(
            "--users",
            "--batch",
            "--concurrency",
            help="Users at once, each with the context.",
            rich_help_panel=MODEL,
        ),
    ] = 1,
    shared_prefix: Annotated[
        str | None,
        typer.Option(
            help="Tokens at the beginning that all users share, cached once: 2k.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    prefill_chunk: Annotated[
        int, typer.Option(help="Prompt tokens in one forward pass.", rich_help_panel=MODEL)
    ] = PREFILL_CHUNK,
    draft: Annotated[
        int,
        typer.Option(help="Tokens guessed from the context in each step.", rich_help_panel=MODEL),
    ] = 0,
    gpu: Annotated[
        str | None,
        typer.Option(
            help='A card, such as "4060 laptop"; auto asks the driver.', rich_help_panel=CARD
        ),
    ] = None,
    vram: Annotated[
        str | None, typer.Option(help="The card's memory: 11.5 (GiB), 8192M.", rich_help_panel=CARD)
    ] = None,
    gpus: Annotated[
        str,
        typer.Option(
            help="How many such cards share the model; or cards that differ: 3090,3060.",
            rich_help_panel=CARD,
        ),
    ] = "1",
    split: Annotated[
        str | None,
        typer.Option(
            help="Several cards divide each matrix (tensor), or the layers (layers).",
            rich_help_panel=CARD,
        ),
    ] = None,
    gpu_layers: Annotated[
        int | None,
        typer.Option(help="Layers on the GPU; the others run on the host.", rich_help_panel=CARD),
    ] = None,
    ram_bandwidth: Annotated[
        str | None,
        typer.Option(
            help="GB/s of the host's memory, for layers there; auto measures this machine.",
            rich_help_panel=CARD,
        ),
    ] = None,
    reserve: Annotated[
        str | None,
        typer.Option(
            help="Memory left to other programs: 1 (GiB), 600M. 256M if not given, as chat does.",
            rich_help_panel=CARD,
        ),
    ] = None,
    margin: Annotated[
        str, typer.Option(help="Memory left free for safety.", rich_help_panel=CARD)
    ] = "0",
    find_max_context: Annotated[
        bool,
        typer.Option(
            "--max-context",
            help="Ask for the most context that the card holds.",
            rich_help_panel=CARD,
        ),
    ] = False,
    list_gpus: Annotated[
        bool,
        typer.Option(
            "--list-gpus",
            help="List the cards that are known, or those that --gpu WORD names, and leave.",
            rich_help_panel=CARD,
        ),
    ] = False,
    show: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(answers.SHOWN)}; answer if not given.", rich_help_panel=OUTPUT
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--as",
            help=f"One of {', '.join(answers.FORMATS)}; text if not given.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write it to this file.", rich_help_panel=OUTPUT),
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="List every variant that fits, not only the best.", rich_help_panel=OUTPUT
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Load the checkpoint, run it, and compare it with the plan.",
            rich_help_panel=RUN,
        ),
    ] = False,
    device: Annotated[
        str, typer.Option(help="With --verify: auto, cuda or cpu.", rich_help_panel=RUN)
    ] = "auto",
    receipt: Annotated[
        Path | None,
        typer.Option(help="With --verify: write what was compared as JSON.", rich_help_panel=RUN),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", hidden=True)] = False,
    grid: Annotated[bool, typer.Option("--grid", hidden=True)] = False,
    cards: Annotated[bool, typer.Option("--cards", hidden=True)] = False,
    chart: Annotated[bool, typer.Option("--chart", hidden=True)] = False,
    as_json: Annotated[bool, typer.Option("--json", hidden=True)] = False,
    as_csv: Annotated[bool, typer.Option("--csv", hidden=True)] = False,
    as_markdown: Annotated[bool, typer.Option("--md", hidden=True)] = False,
    svg: Annotated[Path | None, typer.Option(hidden=True)] = None,
    png: Annotated[Path | None, typer.Option(hidden=True)] = None,
    html: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> int:
    """Show what runs on a card, with what context and speed, and what each part takes in memory.

    Exit code: 0 it fits (or no card was named), 1 it does not, 2 the question is wrong.
    """
    shown = _one({"explain": explain, "grid": grid, "cards": cards, "chart": chart}, "show", show)
    old_formats = {"json": as_json, "csv": as_csv, "md": as_markdown}
    chosen = one_of("as", _one(old_formats, "as", form) or "text", answers.FORMATS)
    if shown is not None:
        one_of("show", shown, answers.SHOWN)
    if verify:
        return _verify(model, context, kv, embedding, prefill_chunk, gpu_layers, device, receipt)
    if list_gpus:
        from calculator.report.card_list import show_cards

        return show_cards(gpu, chosen)
    if find_max_context and gpu is None and vram is None and "," not in gpus:
        raise OptionError("max context needs a card: name it with gpu or vram")
    asked = Asked(
        model=model,
        weights=weights,
        group_size=group_size,
        lm_head=lm_head,
        embedding=embedding,
        kv=kv,
        context=None if find_max_context else context,
        users=users,
        shared_prefix=shared_prefix,
        prefill_chunk=prefill_chunk,
        draft=draft,
        gpu=gpu,
        vram=vram,
        gpus=gpus,
        split=split,
        gpu_layers=gpu_layers,
        reserve=reserve,
        margin=margin,
        ram_bandwidth=ram_bandwidth,
    )
    plain = "recommended" if asked.is_plain and chosen == "text" else "answer"
    answer, what = _answer(asked, shown, plain)
    for file, kind in ((svg, "svg"), (png, "png"), (html, "html")):
        if file is not None:
            answers.write(answer, show=what, form=_format(kind), every=every, output=file)
    answers.write(answer, show=what, form=_format(chosen), every=every, output=output)
    margin_bytes = answer.question.margin_bytes
    fits = margin_bytes is None or margin_bytes >= 0
    return 0 if fits or what not in answers.CHOOSING else 1


def _answer(asked: Asked, shown: str | None, plain: str) -> tuple[Answer, answers.Show]:
    """The answer, and what is shown of it. plain: what to show where no card is known."""
    question = asked.question()
    if shown in ("grid", "cards", "chart", "recommended"):
        question.plan  # noqa: B018 - refuses what does not go together
        return Answer(question, asked.fixed), _show(shown)
    if question.card is None and shown is None and plain == "recommended":
        return Answer(question, asked.fixed), "recommended"
    answer = find_answer(question, asked.fixed)
    answer.question.plan  # noqa: B018 - refuses what does not go together
    return answer, _show(shown or "answer")


def _one(old: dict[str, bool], name: str, new: str | None) -> str | None:
    """The one thing that was asked for, by its option's name or in its old spelling."""
    given = [word for word, is_given in old.items() if is_given]
    given += [new] if new is not None else []
    if len(set(given)) > 1:
        raise OptionError(f"{name} takes one of {', '.join(given)}, not several")
    return given[0] if given else None


def _show(word: str) -> answers.Show:
    return next(each for each in answers.SHOWN if each == word)


def _format(word: str) -> answers.Format:
    return next(each for each in answers.FORMATS if each == word)


def _verify(
    model: str,
    context: str | None,
    kv: str | None,
    embedding: str | None,
    prefill_chunk: int,
    gpu_layers: int | None,
    device: str,
    receipt: Path | None,
) -> int:
    # What runs a model stands above the calculator; only the command line reaches up to it.
    from calculator.questions.fit import Wish
    from glm4q.commands.run.receipt import verify_plan

    tokens = None if context is None else parse_tokens(context)
    wish = Wish(tokens, kv, parse_device(embedding, "embedding"), prefill_chunk, gpu_layers)
    return verify_plan(Path(model), wish, device=device, receipt=receipt)
