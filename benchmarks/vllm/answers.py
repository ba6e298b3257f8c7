"""Whether vLLM reads what glm4q writes: the printed command, bf16 and GPTQ checkpoints, answers.

    python -m benchmarks.vllm.answers CHECKPOINT...

vLLM computes on the CPU, by its wheel for CPUs, whose GPTQ kernel needs AVX-512. Each answer at
temperature 0 is compared with that of glm4q, token by token.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks.machine import GLM4Q, describe_machine
from calculator.questions.fit import Wish
from glm4q.decode.generate import generate, token_ids
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM

PYTHON, WORKER = Path("build/peers/vllm/bin/python"), Path(__file__).with_name("worker.py")
QUESTIONS = ("What is the capital of France?", "Name three colours.", "What is a cache?")
TOKENS = 32
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


def ask(command: Sequence[str], given: Any) -> Any:
    """What the worker answers. The program ends where the worker fails."""
    ran = subprocess.run(
        [str(PYTHON), str(WORKER), *command],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    if ran.returncode:
        sys.exit(f"vLLM failed: {' '.join(command)}\n{ran.stderr[-3000:]}")
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
    params = SamplingParams(temperature=0, max_tokens=TOKENS, stop_token_ids=llm.stop_token_ids)
    runner = llm.new_runner()
    ours = [list(token_ids(generate(runner, prompt, params))) for prompt in prompts]
    told = ask(["answer", str(checkpoint), str(TOKENS)], prompts)
    print(f"{checkpoint}: {told['architecture']}, quantization {told['quantization']}")
    for question, mine, tokens in zip(QUESTIONS, ours, told["tokens"], strict=True):
        # vLLM tells the token that ends an answer too.
        theirs = list(takewhile(lambda token: token not in params.stop_token_ids, tokens))
        pairs = zip(mine, theirs, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        equal = "all the same" if mine == theirs else f"the first {same} the same"
        print(f"  {question} {len(mine)} tokens, {equal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    options = parser.parse_args()
    check_command(options.checkpoints[0])
    for checkpoint in options.checkpoints:
        check_answers(checkpoint)
    print(describe_machine())


if __name__ == "__main__":
    main()
