"""How many cards serve many users at once: copies of the model, each on one card or several.

vLLM runs such a fleet. Its KV cache has 16 bits a number, and it takes memory of its own beside
the plan's terms, for CUDA graphs and communication.
"""

from bisect import bisect_right
from dataclasses import replace

from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.model.tensor_parallel import split as divide
from calculator.questions.question import Question
from calculator.units import human_bytes

VLLM_BYTES = 1 << 30
"""Assumed: what vLLM holds on each card beside weights, cache and workspace."""
CARDS_OF_A_COPY = (1, 2, 4, 8)


@dataclass(frozen=True)
class Fleet:
    """Copies of one model that together answer all users at once."""

    question: Question
    """One copy: its cards, and as many sequences as it answers at once."""
    copies: int
    users: int

    @property
    def cards(self) -> int:
        return self.copies * self.question.gpus

    @property
    def memory_share(self) -> float:
        """The share of a card that vLLM may fill: all but the reserve, in hundredths."""
        card, plan = self.question.card, self.question.settings
        if card is None:
            raise OptionError("a fleet needs to know its cards")
        return int(100 * (1 - plan.display_reserve / card.usable_bytes)) / 100

    def arguments(self) -> list[str]:
        """The options of `vllm serve`."""
        settings = self.question.settings
        return [
            *("--tensor-parallel-size", str(self.question.gpus)),
            *("--data-parallel-size", str(self.copies)),
            *("--max-model-len", str(settings.context)),
            *("--max-num-seqs", str(settings.batch)),
            *("--gpu-memory-utilization", f"{self.memory_share:.2f}"),
        ]

    def sentences(self) -> list[str]:
        """Say how many cards there are, and what each holds."""
        question, settings = self.question, self.question.settings
        plan, card = question.plan, question.card
        if card is None:
            raise OptionError("a fleet needs to know its cards")
        terms = [term for term in plan.terms if term.device == "gpu"]
        kv = sum(term.bytes for term in terms if term.name.startswith("KV"))
        weights = sum(term.bytes for term in plan.weights if term.device == "gpu")
        other = question.need_bytes - kv - weights - VLLM_BYTES
        copies = "1 copy" if self.copies == 1 else f"{self.copies} copies"
        each = "1 card" if question.gpus == 1 else f"{question.gpus} cards"
        return [
            f"{self.users} users at once, {settings.context:,} tokens each: {copies} of the model, "
            f"each on {each}; {self.cards} x {card.name}",
            f"each copy answers up to {settings.batch} at once; each card holds "
            f"{human_bytes(question.need_bytes)} of {human_bytes(card.usable_bytes)}: "
            f"{human_bytes(weights)} of weights, {human_bytes(kv)} of KV cache, "
            f"{human_bytes(other)} of workspace, context and reserve, and "
            f"{human_bytes(VLLM_BYTES)} assumed for vLLM's own",
        ]


def find_fleet(question: Question, users: int) -> Fleet:
    """Find the fewest cards that serve so many users; of equals, the fewest for each copy.

    The question names a card and a context. Raises OptionError where no copy holds one user.
    """
    if question.card is None:
        raise OptionError("a fleet needs to know its cards: name one with --gpu")
    copies = [copy for gpus in CARDS_OF_A_COPY if (copy := _copy(question, gpus)) is not None]
    fleets = [
        Fleet(_with_users(copy, most), -(-users // most), users)
        for copy in copies
        if (most := _most_users(copy, users))
    ]
    if not fleets:
        most = copies[-1].gpus if copies else 1
        more = "" if most == CARDS_OF_A_COPY[-1] else ", and its groups cannot be divided further"
        raise OptionError(
            f"not even {most} x {question.card.name} hold the model and "
            f"{question.settings.context:,} tokens{more}"
        )
    return min(fleets, key=lambda fleet: fleet.cards)


def _copy(question: Question, gpus: int) -> Question | None:
    """A copy on so many cards; None where the shapes cannot be divided so."""
    settings = replace(
        question.settings, kv="bf16", embedding="gpu", margin=VLLM_BYTES, draft_tokens=0
    )
    subject = question.subject
    try:
        divide(subject.config, subject.formats, gpus)
    except OptionError:
        return None
    return replace(question, settings=settings, gpus=gpus, split="tensor")


def _most_users(copy: Question, users: int) -> int:
    """Count the users that one copy answers at once; 0 where not even one fits."""

    def lacking(count: int) -> bool:
        margin = _with_users(copy, count).margin_bytes
        return margin is not None and margin < 0

    return bisect_right(range(1, users + 1), False, key=lacking)


def _with_users(copy: Question, users: int) -> Question:
    return copy.with_settings(replace(copy.settings, batch=users))
