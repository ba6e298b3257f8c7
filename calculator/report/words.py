"""Names of formats and counts as a person says them."""

from calculator.cards.roofline import Band
from calculator.memory.settings import Device
from calculator.questions.question import Question
from calculator.units import counted, human_band

WEIGHTS = {
    "bf16": "bf16 weights",
    "int8": "INT8 weights",
    "int4": "INT4 weights",
    "nf4": "NF4 weights",
    "llm-int8": "LLM.int8() weights",
}
KV = {"bf16": "bf16", "int8": "INT8", "k8v4": "K8V4", "int4": "INT4", "fp32": "fp32"}
DEVICES: dict[Device, str] = {"gpu": "GPU", "host": "host"}


def variant_words(question: Question) -> str:
    """The weights and the cache: "INT4 weights, INT8 KV cache"."""
    variant = question.subject.variant
    weights = WEIGHTS[variant.weights] if variant else "the stored weights"
    return f"{weights}, {KV[question.settings.kv]} KV cache"


def context_words(question: Question) -> str:
    """The context, and whether it is all that the model can use."""
    context = question.settings.context
    longest = question.subject.config.max_position_embeddings
    if context == longest:
        words = f"the whole {counted(context, 'token')}"
    else:
        words = f"{context:,} of {counted(longest, 'token')}"
    users = question.settings.batch
    return f"{words} for each of {users} users" if users > 1 else words


def card_words(question: Question) -> str:
    """The cards that share the model."""
    if question.others:
        return " + ".join(card.name for card in question.cards)
    name = question.card.name if question.card else ""
    return f"{question.gpus} x {name}" if question.gpus > 1 else name


def band_words(band: Band | None) -> str:
    """A band of speeds, empty where no speed is known."""
    return human_band(band.low, band.high) if band else ""
