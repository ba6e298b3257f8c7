"""What `glm4q quantize --for CARD` does before it quantizes: measure, choose widths, say so."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from calculator.cards.card import find_card
from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.host.memory import available_bytes
from calculator.memory.making import sensing_memory, states_bytes
from calculator.memory.settings import RESERVE, Settings, default_drafts
from calculator.options import one_of, parse_size, parse_tokens
from calculator.questions.asked import DEFAULT_CONTEXT
from calculator.questions.question import Question
from calculator.questions.solve import kv_choices
from calculator.questions.subject import HEADS, Subject
from calculator.questions.widths.fill import Filling, fill_card
from calculator.questions.widths.sensitivity import FILE, Sensitivity, alike, read_sensitivity
from calculator.questions.widths.slots import HEAD_SLOT, Widths
from calculator.units import human_bytes
from glm4q.planning.disk import refuse_full_disk
from quantize.calibrate.samples import Calibration
from quantize.commands.options import Card
from quantize.parts import file_stamps
from quantize.pipeline import refuse_small_disk
from quantize.progress import QuantizeProgress
from quantize.quality.sensitivity.by_divergence import choose_samples, measure
from quantize.quality.sensitivity.by_weights import weigh
from quantize.quality.sensitivity.workshop import Workshop
from quantize.recipe import DEFAULT_GROUP_SIZE, Recipe, recipe_of_widths

HEAD_BITS = {"bf16": 16, "int8": 8}
NAMES = {4: "INT4", 8: "INT8", 16: "bf16"}
KV = "int8"
"""An INT8 cache loses next to nothing (docs/kv-cache.md)."""


@dataclass(frozen=True)
class FillRequest:
    """A source, the card that its checkpoint is to fill, and what the user fixed."""

    stored: StoredModel
    output: Path
    card: Card
    group_size: str | None = None
    asymmetric: bool = False
    lm_head: str | None = None
    method: str | None = None

    def question(self) -> Question:
        """Return the run that is to fill the card. Raises OptionError."""
        config, asked = self.stored.config, self.card
        if self.stored.is_quantized:
            raise OptionError(f"{self.stored.directory} is quantized already")
        cache = kv_choices(config)
        settings = Settings(
            context=parse_tokens(asked.context)
            if asked.context
            else min(DEFAULT_CONTEXT, config.max_position_embeddings),
            kv=one_of("kv", asked.kv or (KV if KV in cache else cache[0]), cache),
            embedding="gpu" if config.tie_word_embeddings else "host",
            display_reserve=(
                RESERVE["gpu"] if asked.reserve is None else parse_size(asked.reserve, "reserve")
            ),
            margin=parse_size(asked.margin, "margin"),
            draft_tokens=default_drafts(1),  # as chat has them
        )
        if config.tie_word_embeddings and self.lm_head not in (None, HEADS[0]):
            raise OptionError(
                f"lm head {self.lm_head}: the head of {self.stored.name} is its embedding, which a "
                "filled card keeps as it is"
            )
        card = find_card(asked.gpu, asked.vram)
        subject = Subject(self.stored.name, config, self.stored.formats, "headers", None)
        question = Question(subject, settings, card, model=str(self.stored.directory))
        question.plan  # noqa: B018 - refuses what does not go together
        return question

    @property
    def widths(self) -> Widths:
        """The matrices, and the formats that they may take. Raises OptionError."""
        widths = Widths(
            self.stored.config, self.group_size or DEFAULT_GROUP_SIZE, not self.asymmetric
        )
        widths.refuse_unfit()
        return widths

    def fill(self, sensitivity: Sensitivity) -> Filling:
        """Choose the widths. Raises OptionError where there is nothing to choose."""
        question = self.question()
        head = HEAD_BITS[one_of("lm head", self.lm_head, HEADS)] if self.lm_head else None
        widths = sensitivity.widths(self.stored.config)
        filling = fill_card(question, widths, sensitivity.costs, head)
        if filling.is_whole and question.card:
            raise OptionError(
                f"{question.card.name} holds {question.subject.name} in bf16 with "
                f"{human_bytes(filling.spare_bytes)} to spare: there is nothing to quantize"
            )
        return filling


@dataclass(frozen=True)
class Filled:
    """The widths that were chosen, and what they were chosen by."""

    filling: Filling
    sensitivity: Sensitivity
    recipe: Recipe
    workshop: Workshop | None

    def keep(self, directory: Path) -> None:
        """Write the record into the checkpoint."""
        text = json.dumps(self.sensitivity.record(), indent=2, ensure_ascii=False)
        (directory / FILE).write_text(text + "\n", encoding="utf-8")

    def clean(self) -> None:
        """Delete what only a run that is cut off needs."""
        if self.workshop:
            self.workshop.remove()

    def line(self) -> str:
        """Say what was chosen, what fills the card, and what that costs by the estimate."""
        return filling_line(self.filling, self.sensitivity)


def fill(
    request: FillRequest,
    calibration: Callable[[], Calibration],
    devices: Sequence[torch.device],
    *,
    max_memory: int | None,
    tell: Callable[[str], None],
) -> Filled:
    """Measure what each matrix costs, and choose the widths that fill the card.

    calibration: reads the samples, where they are needed. devices: the first that has the memory
    computes. tell: shows a line. Raises OptionError.
    """
    if request.card.sensitivity is None:
        # Raises before anything is measured: neither whether the card does depends on costs, nor,
        # but for the last matrices, how many bytes fill it.
        likely = request.fill(alike(request.widths))
        recipe = recipe_of_widths(likely.widths, likely.bits, request.method)
        refuse_small_disk(request.stored, request.output, recipe)
    sensitivity, workshop = find_sensitivity(
        request, calibration, devices, max_memory=max_memory, tell=tell
    )
    filling = request.fill(sensitivity)
    recipe = recipe_of_widths(filling.widths, filling.bits, request.method)
    return Filled(filling, sensitivity, recipe, workshop)


def find_sensitivity(
    request: FillRequest,
    calibration: Callable[[], Calibration],
    devices: Sequence[torch.device],
    *,
    max_memory: int | None,
    tell: Callable[[str], None],
) -> tuple[Sensitivity, Workshop | None]:
    """Return what each matrix costs: as a record has it, as samples show it, or by its weights.

    The directory is where a run that was cut off goes on; None for a record. Raises OptionError.
    """
    if request.card.sensitivity:
        record = read_sensitivity(request.card.sensitivity)
        if request.group_size not in (None, record.group_size) or (
            request.asymmetric and record.symmetric
        ):
            raise OptionError(
                f"{request.card.sensitivity} was measured with groups of {record.group_size}, "
                f"{'symmetric' if record.symmetric else 'asymmetric'}: ask for the same"
            )
        return record, None
    widths, stored = request.widths, request.stored
    depends_on = {
        "source": file_stamps(stored),
        "group size": widths.group_size,
        "symmetric": widths.symmetric,
    }
    about: dict[str, Any] = {"source": stored.name}
    if request.method == "rtn":
        workshop = Workshop(request.output, depends_on)
        with workshop.locked(), QuantizeProgress() as progress:
            return weigh(stored, widths, workshop, progress.sense).with_facts(about), workshop
    samples = calibration()
    token_ids = choose_samples(samples.token_ids)
    device, need = _place(stored, token_ids, devices, max_memory)
    request.output.parent.mkdir(parents=True, exist_ok=True)
    disk = states_bytes(stored.config, *token_ids.shape)
    refuse_full_disk(request.output.parent, request.output, disk)
    tell(
        f"planned: {human_bytes(need)} of memory and {human_bytes(disk)} of disk at most to "
        "measure what each matrix costs"
    )
    about |= {"calibration": samples.record}
    workshop = Workshop(request.output, {**depends_on, "samples": samples.digest})
    with workshop.locked(), QuantizeProgress() as progress:
        sensed = measure(
            stored, widths, token_ids, workshop, device=device, listener=progress.sense
        )
    return sensed.with_facts(about), workshop


def filling_line(filling: Filling, sensitivity: Sensitivity) -> str:
    """Say what was chosen, what fills the card, and what that costs by the estimate."""
    question = filling.question
    counts = Counter(bits for name, bits in filling.bits.items() if name != HEAD_SLOT)
    widths = ", ".join(f"{counts[bits]} in {NAMES[bits]}" for bits in sorted(counts))
    head = f", the head in {NAMES[filling.bits[HEAD_SLOT]]}" if HEAD_SLOT in filling.bits else ""
    card = question.card.name if question.card else ""
    share = filling.cost / filling.narrowest_cost if filling.narrowest_cost else 0.0
    return (
        f"for {card}: {widths} of {sum(counts.values())} matrices{head}; with "
        f"{question.settings.context:,} tokens in an {question.settings.kv} KV cache "
        f"{human_bytes(question.need_bytes)}, {human_bytes(filling.spare_bytes)} are left; "
        f"estimated loss {share:.1%} of that of all in INT4 ({sensitivity.unit})"
    )


def _place(
    stored: StoredModel,
    token_ids: torch.Tensor,
    devices: Sequence[torch.device],
    limit: int | None,
) -> tuple[torch.device, int]:
    """Return the device that measures, and the memory that this takes.

    Raises OptionError where none has that memory.
    """
    samples, tokens = token_ids.shape
    need = sensing_memory(stored.config, samples=samples, tokens=tokens).total
    for device in devices:
        on_host = device.type == "cpu"
        free = available_bytes() if on_host else torch.cuda.mem_get_info(device)[0]
        free = free if limit is None else limit
        if need <= free:
            return device, need
    raise OptionError(
        f"measuring what each matrix costs needs {human_bytes(need)}, and {human_bytes(free)} "
        f"{'are free' if limit is None else 'are allowed'}; --method rtn goes by the weights "
        "alone, and --sensitivity takes what was measured before"
    )
