"""Put `glm4q serve` under load: many clients, a long prompt, a full queue, clients that die.

Run it by `python -m benchmarks.server.load CHECKPOINT`. It prints one line for each thing it does.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import openai

from benchmarks.machine import describe_machine
from benchmarks.server.running import Seen, ask, figures, new_client, percentiles, serve

ROWS, QUEUE, TOKENS = 8, 16, 32
PROMPTS = [f"Tell me something about the number {number}." for number in range(16)]
OPTIONS = ("--parallel", str(ROWS), "--queue", str(QUEUE), "--context", "5k", "--device", "cpu")


async def _load(url: str, clients: int, seconds: float) -> tuple[list[tuple[str, Seen]], float]:
    """Let so many clients ask one question after another."""
    begun = time.perf_counter()
    answers: list[tuple[str, Seen]] = []

    async def go_on(number: int) -> None:
        async with new_client(url) as client:
            while time.perf_counter() - begun < seconds:
                prompt = PROMPTS[number % len(PROMPTS)]
                answers.append((prompt, await ask(client, prompt, TOKENS)))
                number += clients

    await asyncio.gather(*(go_on(number) for number in range(clients)))
    return answers, time.perf_counter() - begun


async def many_clients(url: str, seconds: float) -> None:
    """Compare one client with eight, and every answer with the one that was given alone."""
    speeds = []
    alone: dict[str, str] = {}
    async with new_client(url) as client:
        for prompt in PROMPTS:
            alone[prompt] = (await ask(client, prompt, TOKENS)).text
    for clients in (1, ROWS):
        answers, took = await _load(url, clients, seconds)
        speeds.append(sum(seen.tokens for _, seen in answers) / took)
        crossed = sum(seen.text != alone[prompt] for prompt, seen in answers)
        between = [gap for _, seen in answers for gap in seen.between]
        print(
            f"| {clients} clients | {len(answers)} answers, {crossed} other than alone | "
            f"{speeds[-1]:.1f} tokens/s | first token "
            f"{percentiles([seen.to_first for _, seen in answers])} ms | "
            f"between {percentiles(between)} ms |",
            flush=True,
        )
    print(f"{ROWS} clients have {speeds[1] / speeds[0]:.2f} times the speed of one")


async def long_prompt(url: str) -> None:
    """Let a prompt of some 4,096 tokens come while another answer runs."""
    async with new_client(url) as client:
        running = asyncio.create_task(ask(client, PROMPTS[0], 400))
        await asyncio.sleep(1)
        seen = await ask(client, "one two three four " * 1020, 8)
        gaps = (await running).between
    print(
        f"a long prompt had its first token after {seen.to_first:.1f} s; the running answer paused "
        f"for {1000 * max(gaps):.0f} ms at most, median {1000 * sorted(gaps)[len(gaps) // 2]:.0f}"
    )


async def full_queue(url: str, clients: int) -> None:
    """Let many clients ask at the same moment."""

    async def status(client: openai.AsyncOpenAI) -> str:
        try:
            await ask(client, PROMPTS[0], 8)
        except openai.APIStatusError as error:
            return f"{error.status_code} (Retry-After {error.response.headers['retry-after']} s)"
        return "200"

    async with new_client(url) as client:
        counted = Counter(await asyncio.gather(*(status(client) for _ in range(clients))))
    print(f"{clients} clients at once, {ROWS} rows, a queue of {QUEUE}: {dict(counted)}")


async def memory(url: str, requests: int) -> None:
    """Ask many short questions, and compare what the process holds before and after."""
    before = figures(url)

    async def go_on(client: openai.AsyncOpenAI) -> None:
        for number in range(requests // ROWS):
            await ask(client, PROMPTS[number % len(PROMPTS)], 2)

    async with new_client(url) as client:
        await asyncio.gather(*(go_on(client) for _ in range(ROWS)))
    after = figures(url)
    held, planned = "glm4q_held_bytes host", "glm4q_planned_bytes host"
    print(
        f"{requests} requests: {before[held] / 2**20:.0f} MiB before, {after[held] / 2**20:.0f} "
        f"after; planned {after[planned] / 2**20:.0f} and Python with torch beside"
    )


async def dying_clients(url: str) -> None:
    """Kill clients in the middle of their streams, and see how soon their rows are free."""
    body = {
        "model": "loaded",
        "messages": [{"role": "user", "content": PROMPTS[0]}],
        "max_tokens": 4000,
        "stream": True,
    }
    code = f"import httpx2\nwith httpx2.stream('POST', '{url}/v1/chat/completions', json={body!r}, "
    code += "timeout=600) as answer:\n    for line in answer.iter_lines(): pass"
    clients = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(ROWS)]
    while figures(url)["glm4q_running"] < ROWS:
        await asyncio.sleep(0.1)
    begun = time.perf_counter()
    for client in clients:
        client.kill()
    while figures(url)["glm4q_running"]:
        await asyncio.sleep(0.02)
    print(f"{ROWS} killed clients had their rows freed in {time.perf_counter() - begun:.2f} s")
    for client in clients:
        client.wait()


async def slow_readers(url: str) -> None:
    """Open streams that nobody reads, and ask beside them."""
    body = json.dumps(
        {"model": "loaded", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    ).encode()
    host, port = url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    )
    readers = []
    for _ in range(ROWS - 1):
        reader = socket.create_connection((host, int(port)))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        readers.append(reader)
    async with new_client(url) as client:
        seen = await ask(client, PROMPTS[1], TOKENS)
    print(
        f"beside {ROWS - 1} streams that nobody reads: first token after "
        f"{1000 * seen.to_first:.0f} ms, between {percentiles(seen.between)} ms"
    )
    for reader in readers:
        reader.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--seconds", type=float, default=120, help="of each load")
    parser.add_argument("--requests", type=int, default=2000, help="of the check of memory")
    options = parser.parse_args()
    with serve(options.checkpoint, *OPTIONS) as url:
        asyncio.run(many_clients(url, options.seconds))
        asyncio.run(long_prompt(url))
        asyncio.run(full_queue(url, 200))
        asyncio.run(dying_clients(url))
        asyncio.run(slow_readers(url))
        asyncio.run(memory(url, options.requests))
    print(describe_machine("uvicorn", "starlette"))


if __name__ == "__main__":
    main()
