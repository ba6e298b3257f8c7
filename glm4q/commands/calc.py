"""`glm4q calc`: what runs on a card, in which variant, how much is left, how fast."""

from pathlib import Path

from calculator.errors import OptionError
from calculator.memory.settings import parse_device
from calculator.memory.workspace import PREFILL_CHUNK
from calculator.options import one_of, parse_tokens
from calculator.questions.answer import Answer, find_answer
from calculator.questions.asked import Asked
from calculator.report import answers
from glm4q.commands.options import calc as option
from glm4q.commands.process.signals import stops_stay_stops

EXAMPLES = (
    "glm4q calc --gpu 4070",
    "glm4q calc glm-4-9b-chat --gpu 4060 --context 128k --kv int8",
    "glm4q calc --gpus 3090,3060 --users 8",
    "glm4q calc --gpu 4060 --as html -o calc.html",
)


def calc(
    model: option.Model = "glm-4-9b-chat",
    weights: option.Weights = None,
    group_size: option.GroupSize = None,
    lm_head: option.LmHead = None,
    embedding: option.Embedding = None,
    kv: option.KV = None,
    context: option.Context = None,
    users: option.Users = 1,
    shared_prefix: option.SharedPrefix = None,
    prefill_chunk: option.PrefillChunk = PREFILL_CHUNK,
    draft: option.Draft = None,
    gpu: option.Gpu = None,
    vram: option.Vram = None,
    gpus: option.Gpus = "1",
    split: option.Split = None,
    gpu_layers: option.GpuLayers = None,
    ram_bandwidth: option.RamBandwidth = None,
    reserve: option.Reserve = None,
    margin: option.Margin = "0",
    find_max_context: option.MaxContext = False,
    list_gpus: option.ListGpus = False,
    show: option.Show = None,
    form: option.As = None,
    output: option.Output = None,
    every: option.All = False,
    verify: option.Verify = False,
    device: option.Device = "auto",
    receipt: option.Receipt = None,
    explain: option.Explain = False,
    grid: option.Grid = False,
    cards: option.Cards = False,
    chart: option.Chart = False,
    as_json: option.AsJson = False,
    as_csv: option.AsCsv = False,
    as_markdown: option.AsMarkdown = False,
    svg: option.HiddenFile = None,
    png: option.HiddenFile = None,
    html: option.HiddenFile = None,
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
    if receipt is not None or device != "auto":
        raise OptionError("device and receipt are for verify, which loads a checkpoint")
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
    if shown == "widths":
        from calculator.questions.widths.ladder import as_filled

        return Answer(as_filled(question, asked.fixed), asked.fixed), "widths"
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


@stops_stay_stops()
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
