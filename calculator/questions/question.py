"""A question to the calculator: a model in a variant, settings, and perhaps a card."""

import shlex
from dataclasses import dataclass, replace
from functools import cached_property

from calculator.cards.card import Card
from calculator.errors import OptionError
from calculator.memory.plan import MemoryPlan, Planner
from calculator.memory.settings import Settings
from calculator.model.tensor_parallel import split
from calculator.options import printable
from calculator.questions.subject import Subject, Variant


@dataclass(frozen=True)
class Question:
    """What is asked; other questions are made of it by changing one thing."""

    subject: Subject
    settings: Settings
    card: Card | None = None
    gpus: int = 1
    """Cards of that kind that share the model."""
    model: str = ""
    """The argument that named the model, to name it again."""

    def __post_init__(self) -> None:
        if self.gpus > 1 and self.settings.gpu_layers is not None:
            raise OptionError("gpu layers are for one GPU, and gpus asks for more")

    @cached_property
    def planner(self) -> Planner:
        """Plans for one of the cards."""
        subject = self.subject
        if self.gpus == 1:
            return Planner(
                subject.config, subject.formats, source=subject.source, served=subject.served
            )
        config, formats = split(subject.config, subject.formats, self.gpus)
        return Planner(config, formats, source=subject.source)

    @cached_property
    def plan(self) -> MemoryPlan:
        return self.planner.plan(self.settings)

    @property
    def need_bytes(self) -> int:
        """What one card must have, or the host where all is computed there."""
        return self.plan.compute_bytes

    @property
    def margin_bytes(self) -> int | None:
        """What the card has beyond that, below 0 where it lacks; None without a card."""
        return self.card.usable_bytes - self.need_bytes if self.card else None

    def with_settings(self, settings: Settings) -> "Question":
        """The same with other settings; the planner is kept, its weights being the same."""
        changed = replace(self, settings=settings)
        changed.__dict__["planner"] = self.planner
        return changed

    def with_variant(self, variant: Variant) -> "Question":
        """The same in other formats. Raises OptionError where the shapes refuse."""
        return replace(self, subject=self.subject.with_variant(variant))

    def command(self) -> str:
        """The command line that asks this again."""
        return f"glm4q calc {shlex.join(self._arguments())}"

    def _arguments(self) -> list[str]:
        settings, plain = self.settings, Settings()
        asked = [printable(self.model or self.subject.name)]
        if self.subject.variant and self.subject.source != "headers":
            asked += self.subject.variant.arguments()
        asked += ["--kv", settings.kv, "--context", str(settings.context)]
        for option, name in (
            ("--batch", "batch"),
            ("--prefill-chunk", "prefill_chunk"),
            ("--embedding", "embedding"),
            ("--gpu-layers", "gpu_layers"),
        ):
            if getattr(settings, name) != getattr(plain, name):
                asked += [option, str(getattr(settings, name))]
        for option, size in (
            ("--reserve", settings.display_reserve),
            ("--margin", settings.margin),
        ):
            if size:
                asked += [option, f"{size / (1 << 20):.9g}M"]
        if self.gpus != 1:
            asked += ["--gpus", str(self.gpus)]
        if self.card:
            asked += self.card.arguments
        return asked
