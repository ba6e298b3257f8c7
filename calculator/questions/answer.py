"""The answer to a question that leaves something open: the best way to run, and all others."""

import shlex
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from calculator.cards.card import Card, card_of
from calculator.cards.gpus import Gpu, find_gpu, load_gpus
from calculator.dataclass import dataclass
from calculator.options import printable
from calculator.questions.question import Question
from calculator.questions.variants import (
    Choice,
    Choices,
    Fixed,
    best_by_card,
    find_choices,
    smallest_variant,
    with_host_layers,
)
from calculator.units import GIB

if TYPE_CHECKING:
    from calculator.memory.making_cost import MakingCost

REPOSITORIES = {
    "glm-4-9b-chat": "THUDM/glm-4-9b-chat",
    "glm-4-9b-chat-1m": "THUDM/glm-4-9b-chat-1m",
    "glm-4-9b": "THUDM/glm-4-9b",
    "glm-4-9b-0414": "THUDM/GLM-4-9B-0414",
    "glm-z1-9b-0414": "THUDM/GLM-Z1-9B-0414",
    "glm-4-32b-0414": "THUDM/GLM-4-32B-0414",
    "chatglm3-6b": "THUDM/chatglm3-6b",
}
"""The Hugging Face id of each preset's weights."""

RECOMMENDED = (
    *("RTX 2060", "RTX 4060", "RTX 3080 10GB", "RTX 3060 12GB", "RTX 4060 Ti 16GB"),
    *("RTX 3090", "RTX 5090", "RTX A6000", "A100 80GB"),
)
"""A well-known card of each size."""


@dataclass(frozen=True)
class Answer:
    """The plan that is shown, and the other ways to run on the same card."""

    question: Question
    fixed: Fixed
    choices: Choices = field(default_factory=Choices)
    asked: Question | None = None
    """The question before anything was chosen."""

    @property
    def best(self) -> Choice | None:
        """The way that is shown; None where nothing fits or no card is named."""
        return self.choices.fitting[0] if self.choices.fitting else None


def find_answer(question: Question, fixed: Fixed) -> Answer:
    """Choose what is open by the card. Without a card the question is its own answer."""
    if question.card is None:
        return Answer(question, fixed)
    choices = find_choices(question, fixed)
    if choices.fitting:
        return Answer(choices.fitting[0].question, fixed, choices, question)
    if fixed.weights:
        return Answer(question, fixed, choices, question)
    hosted = with_host_layers(question, fixed)
    return Answer(hosted or smallest_variant(question, fixed), fixed, choices, question)


def smallest_card(question: Question) -> Gpu | None:
    """Return the smallest listed card that holds the plan, the cheapest to run among equals."""
    fitting = [gpu for gpu in load_gpus() if gpu.reported_bytes >= question.need_bytes]
    return min(
        fitting,
        key=lambda gpu: (not gpu.runs_glm4q, gpu.reported_bytes, gpu.tdp_watts or 0),
        default=None,
    )


def answer_cost(question: Question) -> "MakingCost | None":
    """Return what it takes to make the variant; None where `glm4q quantize` does not round it."""
    variant = question.subject.variant
    if variant is None or variant.weights not in ("int8", "int4"):
        return None
    from calculator.memory.making_cost import CardRates, making_cost

    subject, card = question.subject, question.card
    gpu = card.gpu if card and card.gpu and card.gpu.runs_glm4q else None
    return making_cost(
        subject.formats,
        subject.config,
        calibrated=variant.weights == "int4",
        card=CardRates(gpu.matrix_tflops * 1e12, gpu.fp32_tflops * 1e12) if gpu else None,
        card_bytes=card.usable_bytes if card else 0,
    )


def is_here(question: Question) -> bool:
    """Whether the model's files are on this machine, so that nothing is downloaded."""
    return Path(question.model).is_dir()


def making_commands(question: Question) -> tuple[str, ...]:
    """Return the commands that make the variant and run it as planned."""
    source, repository = _source_argument(question), _repository(question)
    variant, settings = question.subject.variant, question.settings
    runs = []
    if variant is None:
        target = source
    elif variant.weights == "bf16" and variant.lm_head == "bf16":
        target = source if repository == source else source.lower()
        if repository != source:
            runs.append(f"hf download {repository} --local-dir {target}")
    else:
        name = printable(repository.strip("'").rstrip("/").rpartition("/")[2].lower())
        target = shlex.quote(f"{name}-{variant.weights}")
        options = " ".join(variant.arguments())
        runs.append(f"glm4q quantize {repository} -o {target} {options}")
    card = question.card
    if card is not None and card.gpu is not None and not card.gpu.runs_glm4q:
        return (*runs, *_llama_commands(question, target))
    if question.gpus > 1:
        return (*runs, _vllm_command(question, target))
    if settings.batch > 1:
        users = f"--parallel {settings.batch} --context {settings.context}"
        return (*runs, f"glm4q serve {target} {users} --kv {settings.kv}{_layers(question)}")
    longest = question.subject.config.max_position_embeddings
    context = f" --context {settings.context}" if settings.context < longest else ""
    return (*runs, f"glm4q chat {target} --kv {settings.kv}{context}{_layers(question)}")


def filling_command(question: Question, source: str = "") -> str | None:
    """Return the command that fills what an INT4 checkpoint leaves of the card by more bits.

    source: a repository or directory, as a shell reads it; the question's where it is empty. None
    where the question is not of one card that computes all layers for one sequence, or not of INT4.
    """
    variant, card, settings = question.subject.variant, question.card, question.settings
    if variant is None or card is None or variant.weights != "int4" or question.gpus > 1:
        return None
    if settings.compute == "host" or settings.gpu_layers is not None or settings.batch > 1:
        return None
    if card.gpu is not None and not card.gpu.runs_glm4q:
        return None
    words = ["--for" if word == "--gpu" else word for word in card.arguments]
    words = words or ["--vram", f"{card.usable_bytes / GIB:.2f}"]
    words += ["--context", str(settings.context), "--kv", settings.kv]
    words += [*question.free_arguments(), *variant.group_arguments()]
    return f"glm4q quantize {source or _repository(question)} -o DIR {shlex.join(words)}"


def _layers(question: Question) -> str:
    layers = question.settings.gpu_layers
    return f" --gpu-layers {layers}" if layers is not None else ""


def _repository(question: Question) -> str:
    source = _source_argument(question)
    return REPOSITORIES.get(source.lower(), source)


def _source_argument(question: Question) -> str:
    """What names the files to quantize: the directory of a config.json that is asked alone."""
    path = Path(question.model)
    if path.is_file() and path.suffix == ".json":
        return shlex.quote(printable(str(path.parent)))
    return question.model_argument


def _llama_commands(question: Question, target: str) -> tuple[str, ...]:
    """llama.cpp serves the exported file on cards without CUDA."""
    settings = question.settings
    cache = {"bf16": "bf16", "int8": "q8_0", "k8v4": "q8_0", "int4": "q4_0"}[settings.kv]
    values = "q4_0" if settings.kv == "k8v4" else cache
    return (
        f"glm4q export {target} --to gguf -o {target}.gguf",
        f"llama-server -m {target}.gguf -c {settings.context} -ctk {cache} -ctv {values}",
    )


def _vllm_command(question: Question, target: str) -> str:
    kind = "pipeline" if question.by_layers else "tensor"
    return (
        f"vllm serve {target} --{kind}-parallel-size {question.gpus} "
        f"--max-model-len {question.settings.context} --max-num-seqs {question.settings.batch}"
    )


def recommended(question: Question) -> tuple[tuple[Card, Choice | None], ...]:
    """Return the best way to run on a card of each size, from 6 GB on."""
    cards = tuple(card_of(find_gpu(name)) for name in RECOMMENDED)
    return tuple(zip(cards, best_by_card(question, cards), strict=True))
