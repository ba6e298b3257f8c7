"""Ask one question and print the answer as it comes: python examples/ask.py CHECKPOINT QUESTION"""

import sys

from glm4q import LLM


def main() -> None:
    directory, question = sys.argv[1:]
    for piece in LLM.load(directory).chat(question, stream=True):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
