"""A question in the words of the command line, which may leave much open."""

from dataclasses import replace

from calculator.cards.card import Card, find_card, find_machine_card
from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.memory.settings import (
    MAX_DRAFT_TOKENS,
    MAX_TOKENS,
    RESERVE,
    Device,
    Settings,
    default_drafts,
    parse_device,
)
from calculator.memory.workspace import PREFILL_CHUNK
from calculator.options import one_of, parse_size, parse_tokens
from calculator.questions.question import Question, Split
from calculator.questions.solve import KV_CHOICES
from calculator.questions.subject import find_subject
from calculator.questions.variants import Fixed

DEFAULT_CONTEXT = 8192


@dataclass(frozen=True)
class Asked:
    """The options of `glm4q calc`, as they were typed; None where an option was not given."""

    model: str = "glm-4-9b-chat"
    weights: str | None = None
    group_size: str | None = None
    lm_head: str | None = None
    embedding: str | None = None
    kv: str | None = None
    context: str | None = None
    users: int = 1
    shared_prefix: str | None = None
    prefill_chunk: int = PREFILL_CHUNK
    draft: int | None = None
    gpu: str | None = None
    vram: str | None = None
    gpus: str = "1"
    split: str | None = None
    gpu_layers: int | None = None
    reserve: str | None = None
    margin: str = "0"
    ram_bandwidth: str | None = None

    @property
    def fixed(self) -> Fixed:
        """What must not be chosen otherwise."""
        return Fixed(
            weights=self.weights is not None,
            group_size=self.group_size is not None,
            lm_head=self.lm_head is not None,
            kv=self.kv is not None,
            embedding=self.embedding is not None,
            context=self.context is not None,
        )

    @property
    def is_plain(self) -> bool:
        """Whether nothing was asked beyond the model."""
        return replace(self, model=Asked.model) == Asked()

    def question(self) -> Question:
        """The question, with defaults in place of what is open. Raises OptionError."""
        bandwidth = self._host_bandwidth()
        cards = tuple(
            card if bandwidth is None else replace(card, host_bandwidth=bandwidth)
            for card in self._cards()
        )
        subject = find_subject(
            self.model, weights=self.weights, group_size=self.group_size, lm_head=self.lm_head
        )
        count = len(cards) if len(cards) > 1 else self._count()
        question = Question(
            subject,
            self._settings(subject.config.max_position_embeddings),
            cards[0] if cards else None,
            count,
            self.model,
            others=cards[1:],
            split=self._split(cards),
        )
        if count > 1 and self.split is None and not cards[1:]:
            return _divisible(question, self.fixed)
        return question

    def _settings(self, longest: int) -> Settings:
        embedding: Device | None = parse_device(self.embedding, "embedding")
        context = min(DEFAULT_CONTEXT, longest)
        if not 0 < self.users <= MAX_TOKENS:
            raise OptionError(f"users must be 1 to {MAX_TOKENS}, not {self.users}")
        draft = default_drafts(self.users) if self.draft is None else self.draft
        if not 0 <= draft <= MAX_DRAFT_TOKENS:
            raise OptionError(f"draft must be 0 to {MAX_DRAFT_TOKENS}, not {draft}")
        return Settings(
            context=context if self.context is None else parse_tokens(self.context),
            batch=self.users,
            shared_prefix=parse_tokens(self.shared_prefix) if self.shared_prefix else 0,
            prefill_chunk=self.prefill_chunk,
            draft_tokens=draft,
            kv=one_of("kv", "bf16" if self.kv is None else self.kv, KV_CHOICES),
            embedding=embedding or "gpu",
            gpu_layers=self.gpu_layers,
            display_reserve=(
                RESERVE["gpu"] if self.reserve is None else parse_size(self.reserve, "reserve")
            ),
            margin=parse_size(self.margin, "margin"),
        )

    def _cards(self) -> tuple[Card, ...]:
        names = [name.strip() for name in self.gpus.split(",")]
        if len(names) == 1:
            card = find_card(self.gpu, self.vram)
            if card is None and self.is_plain:
                card = find_machine_card()
            return (card,) if card else ()
        if self.gpu is not None or self.vram is not None:
            raise OptionError("gpus names its cards itself; gpu and vram are for cards alike")
        known = (find_card(name, None) for name in names)
        return tuple(card for card in known if card)

    def _host_bandwidth(self) -> float | None:
        """Bytes a second of the host's memory as given or measured; None where it is assumed."""
        if self.ram_bandwidth is None:
            return None
        if self.ram_bandwidth == "auto":
            from calculator.cards.host import measure_bandwidth

            return measure_bandwidth()
        try:
            rate = float(self.ram_bandwidth)
        except ValueError:
            rate = 0.0
        if not 1 <= rate <= 10_000:
            raise OptionError(
                f"ram bandwidth is auto or 1 to 10000 GB/s, not {self.ram_bandwidth[:40]!r}"
            )
        return rate * 1e9

    def _count(self) -> int:
        text = self.gpus.strip()
        if not text.isascii() or not text.isdigit() or len(text) > 4:
            raise OptionError(
                f"gpus is a number of cards, or names such as 3090,3060, not {text[:40]!r}"
            )
        return int(text)

    def _split(self, cards: tuple[Card, ...]) -> Split:
        if self.split == "layers" and not cards:
            raise OptionError("split layers needs to know the cards: name them with gpu or gpus")
        if self.split is not None:
            chosen: Split = (
                "layers"
                if one_of("split", self.split, ("tensor", "layers")) == ("layers")
                else "tensor"
            )
            if chosen == "tensor" and len(cards) > 1:
                raise OptionError("split tensor needs cards alike; cards that differ divide layers")
            return chosen
        return "layers" if len(cards) > 1 else "tensor"


def _divisible(question: Question, fixed: Fixed) -> Question:
    """Divide layers where the model's matrices cannot be divided among so many cards."""
    variant = question.subject.variant
    sizes = ["128", "64", "32", "channel"]
    if variant is None or fixed.group_size:
        sizes = [variant.group_size if variant else ""]
    for size in sizes:
        try:
            if variant is not None:
                asked = question.with_variant(replace(variant, group_size=size))
            else:
                asked = question
            asked.planner  # noqa: B018 - refuses what cannot be divided
        except OptionError:
            continue
        return asked
    if question.card is None:
        question.planner  # noqa: B018 - says why it cannot be divided
    return replace(question, split="layers")
