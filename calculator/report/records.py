"""A question and its answer as plain data, for JSON and CSV: bytes everywhere."""

from dataclasses import asdict
from typing import Any

from calculator.cards.roofline import SHORT_CONTEXT, Band, prefill_band
from calculator.model.architecture import num_parameters
from calculator.questions.answer import Answer, answer_cost, making_commands, recommended
from calculator.questions.grid import GridRow
from calculator.questions.longest import Longest
from calculator.questions.question import Question
from calculator.questions.solve import (
    Offer,
    cards_that_fit,
    cheapest_change,
    max_context,
)
from calculator.questions.solve import verdict as verdict_of
from calculator.questions.variants import Choice
from calculator.questions.widths.ladder import Ladder, command

SCHEMA = "glm4q.calc/1"


def answer_record(answer: Answer, *, every: bool = False) -> dict[str, Any]:
    """What `glm4q calc --as json` prints."""
    record = question_record(answer.question)
    if answer.question.card is not None:
        shown = answer.choices.fitting if every else answer.choices.diverse
        record["variants"] = [_choice(choice) for choice in shown]
        record["variants_that_fit"] = len(answer.choices.fitting)
        record["left_out"] = list(answer.choices.left_out)
        if record["verdict"] != "no":
            record["commands"] = list(making_commands(answer.question))
            cost = answer_cost(answer.question)
            record["cost_to_make"] = asdict(cost) if cost else None
    return record


def question_record(question: Question) -> dict[str, Any]:
    """The plan of one question in bytes, and what its card makes of it."""
    plan, settings = question.plan, question.settings
    answer: dict[str, Any] = {
        "schema": SCHEMA,
        "model": question.subject.name,
        "parameters": num_parameters(question.subject.config),
        "context": settings.context,
        "batch": settings.batch,
        "prefill_chunk": settings.prefill_chunk,
        "weights": str(question.subject.variant or "as stored"),
        "kv": settings.kv,
        "embedding": settings.embedding,
        "gpu_layers": settings.gpu_layers,
        "display_reserve_bytes": settings.display_reserve,
        "safety_margin_bytes": settings.margin,
        "terms": [
            {
                "name": term.name,
                "device": term.device,
                "bytes": term.bytes,
                "formula": term.formula,
                "source": term.source,
            }
            for term in plan.terms
        ],
        "moments": [
            {"name": moment.name, "bytes": moment.bytes, "formula": moment.formula}
            for moment in plan.arenas[settings.compute].moments
        ],
        "weights_bytes": plan.weights_bytes,
        "kv_cache_bytes": plan.kv_cache_bytes,
        "kv_bytes_per_token": plan.kv_bytes_per_token,
        "bus_bytes_per_token": plan.bus_bytes_per_token,
        "workspace_bytes": plan.workspace_bytes,
        "runtime_overhead_bytes": plan.overhead_bytes,
        "total_gpu_bytes": plan.device_bytes("gpu"),
        "total_host_bytes": plan.device_bytes("host"),
        "measured_loss": asdict(question.measured_loss) if question.measured_loss else None,
        "command": question.command(),
    }
    if settings.shared_prefix:
        answer["shared_prefix"] = settings.shared_prefix
    if settings.draft_tokens:
        answer["draft_tokens"] = settings.draft_tokens
    if question.gpus != 1:
        answer["gpus"] = question.gpus
        answer["split"] = question.split
    if question.by_layers:
        answer["shares"] = [
            {
                "gpu": share.card.name,
                "first_layer": share.layers.start,
                "layers": len(share.layers),
                "gpu_bytes": share.plan.compute_bytes,
                "margin_bytes": share.margin_bytes,
            }
            for share in question.shares
        ]
    return {**answer, **_of_the_card(question)}


def grid_record(question: Question, rows: tuple[GridRow, ...]) -> dict[str, Any]:
    """What `glm4q calc --show grid --as json` prints."""
    return {
        "schema": SCHEMA,
        "model": question.subject.name,
        "gpu": question.card.name if question.card else None,
        "grid": [
            {
                "weights": row.weights,
                "kv": row.kv,
                **asdict(cell),
                "verdict": cell.verdict,
            }
            for row in rows
            for cell in row.cells
        ],
        "command": f"{question.command()} --show grid",
    }


def widths_record(question: Question, ladder: Ladder) -> dict[str, Any]:
    """What `glm4q calc --show widths --as json` prints."""
    asked = ladder.asked
    return {
        "schema": SCHEMA,
        "model": question.subject.name,
        "gpu": question.card.name if question.card else None,
        "estimated_by": ladder.sensitivity.kind,
        "unit": ladder.sensitivity.unit,
        "widths": [
            {
                "usable_bytes": rung.filling.question.card.usable_bytes,
                "need_bytes": rung.filling.question.need_bytes,
                "int4": rung.matrices[4],
                "int8": rung.matrices[8],
                "bf16": rung.matrices[16],
                "head_bits": rung.filling.bits.get("lm_head"),
                "cost": rung.filling.cost,
                "share_of_the_narrowest": rung.loss,
            }
            for rung in ladder.rungs
            if rung.filling.question.card
        ],
        "bits": dict(asked.filling.bits) if asked else {},
        "command": command(question),
    }


def cards_record(question: Question, longest: Longest) -> dict[str, Any]:
    """What `glm4q calc --show cards --as json` prints."""
    return {
        "schema": SCHEMA,
        "model": question.subject.name,
        "cards": [
            {"way": row.name, "gpu": card.name, "max_context": context}
            for row in longest.rows
            for card, context in zip(longest.cards, row.contexts, strict=True)
        ],
        "command": f"{question.command()} --show cards",
    }


def _of_the_card(question: Question) -> dict[str, Any]:
    card, margin = question.card, question.margin_bytes
    offers = [_offer(offer) for offer in cards_that_fit(question)]
    if card is None or margin is None:
        return {"recommended_gpus": offers}
    rates, context = card.rates, question.settings.context
    change = cheapest_change(question, card.usable_bytes) if margin < 0 else None
    answer: dict[str, Any] = {
        "gpu": card.name,
        "usable_bytes": card.usable_bytes,
        "verdict": verdict_of(margin),
        "margin_bytes": margin,
        "max_context": max_context(question, card.usable_bytes),
        "decode_tokens_per_second": None,
        "cheapest_change": asdict(change) if change else None,
        "recommended_gpus": offers,
    }
    if rates:
        short = min(SHORT_CONTEXT, context)
        answer["decode_tokens_per_second"] = _band(question.decode(context))
        answer["speed"] = [
            {
                "depth": depth,
                "decode_tokens_per_second": _band(question.decode(depth)),
                "prefill_tokens_per_second": _band(prefill_band(question.plan, rates, depth=depth)),
            }
            for depth in sorted({short, context})
        ]
    return answer


def recommended_records(question: Question) -> list[dict[str, Any]]:
    """The best way to run on a card of each size; no weights where none fits."""
    return [
        {"gpu": card.name, "usable_bytes": card.usable_bytes}
        | (_choice(choice) if choice else {"weights": None})
        for card, choice in recommended(question)
    ]


def _choice(choice: Choice) -> dict[str, Any]:
    question = choice.question
    return {
        "weights": str(question.subject.variant or "as stored"),
        "kv": question.settings.kv,
        "embedding": question.settings.embedding,
        "context": question.settings.context,
        "margin_bytes": choice.margin_bytes,
        "max_context": choice.max_context,
        "decode_tokens_per_second": _band(choice.decode),
        "command": question.command(),
    }


def _offer(offer: Offer) -> dict[str, Any]:
    return {
        "gpu": offer.gpu.name,
        "margin_bytes": offer.margin_bytes,
        "verdict": verdict_of(offer.margin_bytes),
        "decode_tokens_per_second": _band(offer.decode),
        "tdp_watts": offer.gpu.tdp_watts,
        "launch_usd": offer.gpu.launch_usd,
        "runs_glm4q": offer.gpu.runs_glm4q,
    }


def _band(band: Band | None) -> dict[str, float] | None:
    return {"low": round(band.low, 1), "high": round(band.high, 1)} if band else None
