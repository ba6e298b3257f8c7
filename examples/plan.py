"""Print the longest context of GLM-4-9B-Chat on an RTX 4060, by KV cache. It imports no torch.

python examples/plan.py
"""

from calculator.cards.card import find_card
from calculator.memory.settings import Settings
from calculator.questions.question import Question
from calculator.questions.solve import KV_CHOICES, max_context
from calculator.questions.subject import find_subject


def main() -> None:
    card = find_card("4060", None)
    assert card is not None
    subject = find_subject("glm-4-9b-chat", weights="int4", group_size="128", lm_head="int8")
    for kv in KV_CHOICES:
        settings = Settings(context=8192, kv=kv, embedding="host")
        question = Question(subject, settings, card)
        print(f"{kv}: {max_context(question, card.usable_bytes):,} tokens")


if __name__ == "__main__":
    main()
