"""A server in a process of its own, and the figures that it tells."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
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
