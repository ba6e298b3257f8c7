"""vLLM in a process of its own: `answers.py` asks it.

    python worker.py answer CHECKPOINT TOKENS < prompts.json
    python worker.py parse < arguments.json

It runs where vLLM's wheel for CPUs is installed and this project is not; it answers in JSON.
"""

import json
import os
import sys
from typing import Any

from vllm import LLM, SamplingParams, TokensPrompt
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser


def answer(checkpoint: str, prompts: list[list[int]], tokens: int) -> Any:
    """What vLLM takes the checkpoint for, and its likeliest tokens after each prompt."""
    llm = LLM(
        model=checkpoint, dtype="bfloat16", max_model_len=512, max_num_seqs=2, enforce_eager=True
    )
    greedy = SamplingParams(temperature=0, max_tokens=tokens)
    given = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
    outputs = [llm.generate([prompt], greedy)[0].outputs[0] for prompt in given]
    config = llm.llm_engine.model_config
    return {
        "architecture": config.architectures[0],
        "quantization": config.quantization,
        "tokens": [list(output.token_ids) for output in outputs],
    }


def parse(arguments: list[str]) -> Any:
    """The arguments of `vllm serve` as vLLM's own parser reads them."""
    options = vars(make_arg_parser(FlexibleArgumentParser()).parse_args(arguments))
    kept = (str, int, float, bool, type(None))
    return {name: value for name, value in options.items() if isinstance(value, kept)}


def main(command: str, *rest: str) -> None:
    given, spoken = json.load(sys.stdin), os.dup(1)
    os.dup2(2, 1)  # what vLLM prints goes elsewhere than the answer
    answered = parse(given) if command == "parse" else answer(rest[0], given, int(rest[1]))
    os.write(spoken, (json.dumps(answered) + "\n").encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
