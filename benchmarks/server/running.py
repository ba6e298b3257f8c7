"""A server in a process of its own, and what clients see of it."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import openai
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.machine import GLM4Q

NAME = "loaded"


@contextmanager
def serve(checkpoint: Path, *options: str) -> Iterator[str]:
    """Serve a checkpoint on a free port, and yield the URL."""
    command = [*GLM4Q, "serve", str(checkpoint), "--port", "0", "--name", NAME, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, "")
            url = next(line.split()[-1] for line in lines if "serving at" in line)
            yield url.removesuffix("/v1")
        finally:
            process.terminate()
            process.wait(150)


def figures(url: str) -> dict[str, float]:
    """Read /metrics."""
    text = httpx2.get(f"{url}/metrics", timeout=60).text
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass
class Seen:
    """What one client saw of one answer."""

    text: str = ""
    tokens: int = 0
    to_first: float = 0.0
    between: list[float] = field(default_factory=list)


async def ask(client: openai.AsyncOpenAI, prompt: str, max_tokens: int) -> Seen:
    """Stream one answer at temperature 0, and time its pieces."""
    begun = last = time.perf_counter()
    seen = Seen()
    stream = await client.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    async for piece in stream:
        if piece.usage is not None:
            seen.tokens = piece.usage.completion_tokens
        if not piece.choices or not piece.choices[0].delta.content:
            continue
        now = time.perf_counter()
        if seen.text:
            seen.between.append(now - last)
        else:
            seen.to_first = now - begun
        last = now
        seen.text += piece.choices[0].delta.content
    return seen


def new_client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600)


def percentiles(seconds: list[float]) -> str:
    """The median and the 95th of a hundred, in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return "none"
    half, high = ordered[len(ordered) // 2], ordered[int(0.95 * (len(ordered) - 1))]
    return f"{1000 * half:.0f} / {1000 * high:.0f}"
