"""What each format of the KV cache costs the demo model over 8,192 tokens of text.

The text is Python's own documentation topics, which no format is calibrated on. It goes through
the runtime in chunks, as a prompt does: every key and value is read back from the cache.

    python benchmarks/kv_quality.py [--tokens 8192] [--kv int4 k8v4]
"""

import argparse
import tempfile
from dataclasses import dataclass
from math import exp
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.memory.plan import kv_bytes_per_token
from calculator.model.formats import KV_FORMATS
from calculator.model.presets import PRESETS
from calculator.questions.fit import Wish
from glm4q.decode.runner import Runner
from glm4q.engine import load_as_planned, new_runner
from glm4q.planning.machine import choose_machine
from glm4q.planning.plan import plan_run
from glm4q.text.tokenizer import Tokenizer
from quantize.demo_model import write_demo_model

CHUNK = 512


@dataclass(frozen=True)
class Prediction:
    """The predictions of every token of the text except the first."""

    losses: Tensor
    """float64 [tokens - 1], nats."""
    divergence: float
    """KL from what the model says with a float32 cache, nats, mean over tokens."""

    @property
    def perplexity(self) -> float:
        return exp(self.losses.mean().item())


@torch.inference_mode()
def predict(
    runner: Runner, token_ids: Tensor, exact: list[Tensor] | None
) -> tuple[Prediction, list[Tensor]]:
    """exact: log-probabilities of the float32 cache in float16, chunk by chunk, as returned."""
    losses, divergence, said = [], 0.0, []
    following = torch.cat([token_ids[1:], token_ids[:1]])
    for chunk, (now, wanted) in enumerate(
        zip(token_ids.split(CHUNK), following.split(CHUNK), strict=True)
    ):
        model, step = runner.model, runner.hidden_states(now[None])
        normed = model.model.norm(step["hidden_states"], step, step["normed"])
        spoken = (normed[0] @ model.lm_head.weight.T).log_softmax(-1)
        losses.append(-spoken.gather(1, wanted[:, None])[:, 0].double())
        if exact is None:
            said.append(spoken.half())
        else:
            truth = exact[chunk].float()
            divergence += (truth.exp() * (truth - spoken)).sum(-1).double().sum().item()
    return Prediction(torch.cat(losses)[:-1], divergence / len(token_ids)), said


def held_out(stored: StoredModel, tokens: int) -> Tensor:
    tokenizer = Tokenizer.from_directory(stored.directory)
    text = "\n".join(topics[name] for name in sorted(topics)[1::2])
    return torch.tensor(tokenizer.encode(text)[:tokens])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--kv", nargs="+", choices=KV_FORMATS, default=list(KV_FORMATS)[1:])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "demo"
        write_demo_model(directory)
        report(StoredModel.open(directory), options.tokens, options.kv)


def report(stored: StoredModel, tokens: int, formats: list[str]) -> None:
    """Print a row for each format as it is done; float32 is what they are held against."""
    machine = choose_machine("cpu", "fp32", "auto")
    token_ids = held_out(stored, tokens)
    print(f"{len(token_ids):,} tokens")
    print("| KV cache | bytes a token, GLM-4-9B | perplexity | change | first half | KL, nats |")
    print("|---|---:|---:|---:|---:|---:|")
    model, base, exact = None, None, None
    for kv in ["fp32", *formats]:
        wish = Wish(context=len(token_ids), kv=kv, prefill_chunk=CHUNK)
        plan = plan_run(stored, machine, wish)
        model = model or load_as_planned(stored, plan)
        found, said = predict(new_runner(model, plan, machine), token_ids, exact)
        base, exact = base or found, exact or said
        worse = found.losses - base.losses
        half = worse[: len(worse) // 2]
        print(
            f"| {kv} | {kv_bytes_per_token(PRESETS['glm-4-9b-chat'], kv):,} | "
            f"{found.perplexity:.4f} | {exp(worse.mean().item()) - 1:+.2%} | "
            f"{exp(half.mean().item()) - 1:+.2%} | {found.divergence:.5f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
