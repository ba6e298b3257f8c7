"""Whether vLLM reads what glm4q writes: the printed command, bf16 and GPTQ checkpoints, answers.

    python -m benchmarks.vllm.answers CHECKPOINT...

vLLM computes on the CPU, by its wheel for CPUs, whose GPTQ kernel needs AVX-512. Each answer at
temperature 0 is compared with that of glm4q, token by token; where they part, it is told how far
apart glm4q's two likeliest tokens are there. A checkpoint that vLLM does not load is named with its
reason.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks.machine import GLM4Q, describe_machine
from calculator.questions.fit import Wish
from glm4q.decode.answer import Token
from glm4q.decode.generate import generate
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM

PYTHON, WORKER = Path("build/peers/vllm/bin/python"), Path(__file__).with_name("worker.py")
QUESTIONS = ("What is the capital of France?", "Name three colours.", "What is a cache?")
TOKENS = 32
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


class RefusedError(Exception):
    """vLLM does not do it; the message is its reason."""


def ask(command: Sequence[str], given: Any) -> Any:
    """Return what the worker answers. Raises RefusedError where it fails."""
    ran = subprocess.run(
        [str(PYTHON), str(WORKER), *command],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    if ran.returncode:
        reasons = re.findall(r"\b(?:Value|NotImplemented|Type|Key|OS)Error: .*", ran.stderr)
        raise RefusedError(reasons[-1] if reasons else ran.stderr[-3000:])
    return json.loads(ran.stdout)


def check_command(checkpoint: Path) -> None:
    """Let vLLM's parser read the printed command."""
    options = ["--engine", "vllm", "--print", "--gpu", "3060", "--parallel", "20"]
    printed = subprocess.run(
        [*GLM4Q, "serve", str(checkpoint), *options, "--context", "4k"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    words = shlex.split(printed)
    parsed = ask(["parse"], words[2:])
    for name, value in zip(words[3::2], words[4::2], strict=True):
        read = parsed[name.removeprefix("--").replace("-", "_")]
        if str(read) != value:
            sys.exit(f"vLLM reads {name} {value} as {read}")
    print(f"vLLM reads each option of: {printed.strip()}")


def check_answers(checkpoint: Path) -> None:
    """Compare answers token by token."""
    llm = LLM.load(checkpoint, device="cpu", wish=Wish(context=512, kv="bf16"))
    prompts = [
        llm.tokenizer.encode_prompt(
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        for question in QUESTIONS
    ]
    params = SamplingParams(
        temperature=0,
        max_tokens=TOKENS,
        stop_token_ids=llm.stop_token_ids,
        log_probabilities=2,
    )
    runner = llm.new_runner()
    ours = [
        [event for event in generate(runner, prompt, params) if isinstance(event, Token)]
        for prompt in prompts
    ]
    try:
        loaded = ask(["answer", str(checkpoint), str(TOKENS)], prompts)
    except RefusedError as error:
        print(f"{checkpoint}: vLLM does not load it: {error}")
        return
    print(f"{checkpoint}: {loaded['architecture']}, quantization {loaded['quantization']}")
    for question, mine, tokens in zip(QUESTIONS, ours, loaded["tokens"], strict=True):
        # vLLM gives the token that ends an answer too.
        theirs = list(takewhile(lambda token: token not in params.stop_token_ids, tokens))
        print(f"  {question} {len(mine)} tokens, {_compared(mine, theirs)}")


def _compared(mine: Sequence[Token], theirs: Sequence[int]) -> str:
    """Say how many of the first tokens are the same, and how near the choice was behind them."""
    pairs = zip(mine, theirs, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0].token == pair[1], pairs))
    if same == len(mine) == len(theirs):
        return "all the same"
    if same == len(mine) or (likely := mine[same].log_probabilities) is None:
        return f"the first {same} the same, and vLLM goes on"
    # Of two equally likely tokens either may stand first.
    other, value = next(pair for pair in likely.top if pair[0] != mine[same].token)
    whose = "vLLM's" if other in theirs[same : same + 1] else "which is not vLLM's"
    gap = f"{likely.picked - value:.3f} below the likeliest"
    return f"the first {same} the same; there the second likeliest, {whose}, lies {gap}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    options = parser.parse_args()
    try:
        check_command(options.checkpoints[0])
    except RefusedError as error:
        sys.exit(f"vLLM refuses the printed command: {error}")
    for checkpoint in options.checkpoints:
        check_answers(checkpoint)
    print(describe_machine())


if __name__ == "__main__":
    main()
