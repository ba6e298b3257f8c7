"""Ask two questions of one conversation, whose KV cache is kept between them.

python examples/conversation.py CHECKPOINT
"""

import sys

from calculator.questions.fit import Wish
from glm4q import LLM, SamplingParams


def main() -> None:
    llm = LLM.load(sys.argv[1], wish=Wish(context=2048, kv="int8"))
    print(llm.fit.sentence())  # what was chosen where the wish left it open
    chat = llm.session(system="Answer in one sentence.")
    greedy = SamplingParams(temperature=0, max_tokens=64)
    for question in ("What is the capital of France?", "And of Italy?"):
        print(f"> {question}")
        print("".join(chat.ask(question, greedy)))
        answer = chat.last_answer
        if answer:
            print(f"({answer.cached_tokens} of {answer.prompt_tokens} prompt tokens were cached)")


if __name__ == "__main__":
    main()
