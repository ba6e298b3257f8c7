"""Questions for tests to ask."""

from calculator.cards.card import find_card
from calculator.memory.settings import Settings
from calculator.questions.question import Question
from calculator.questions.subject import find_subject


def ask(
    model: str = "glm-4-9b-chat",
    *,
    weights: str | None = None,
    lm_head: str | None = None,
    group_size: str | None = None,
    gpu: str | None = None,
    vram: str | None = None,
    gpus: int = 1,
    settings: Settings | None = None,
) -> Question:
    """A question in the words of the command line."""
    subject = find_subject(model, weights=weights, group_size=group_size, lm_head=lm_head)
    return Question(subject, settings or Settings(), find_card(gpu, vram), gpus, model)
