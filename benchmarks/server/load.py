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
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.server.clients import RefusedError, Seen, load, percentiles, stream
from benchmarks.server.running import NAME, figures, serve

ROWS, QUEUE, TOKENS = 8, 16, 32
CHAT = "/v1/chat/completions"
PROMPTS = [f"Tell me something about the number {number}." for number in range(16)]
OPTIONS = "--parallel", str(ROWS), "--queue", str(QUEUE), "--context", "5k"


def body(prompt: str, tokens: int = TOKENS) -> dict[str, Any]:
    """A question at temperature 0."""
    messages = [{"role": "user", "content": prompt}]
    return {"model": NAME, "messages": messages, "max_tokens": tokens, "temperature": 0}


async def ask(url: str, prompt: str, tokens: int = TOKENS) -> Seen:
    return await stream(url, CHAT, body(prompt, tokens))


async def many_clients(url: str, options: argparse.Namespace) -> None:
    """Compare one client with eight, and every answer with the one that was given alone."""
    speeds = []
    bodies = [body(prompt) for prompt in PROMPTS]
    alone = [(await stream(url, CHAT, each)).text for each in bodies]
    for clients in (1, ROWS):
        answers, took = await load(url, CHAT, bodies, clients=clients, seconds=options.seconds)
        speeds.append(sum(seen.tokens for _, seen in answers) / took)
        crossed = sum(seen.text != alone[question] for question, seen in answers)
        between = [gap for _, seen in answers for gap in seen.between]
        print(
            f"| {clients} clients | {len(answers)} answers, {crossed} other than alone | "
            f"{speeds[-1]:.1f} tokens/s | first text "
            f"{percentiles([seen.to_first for _, seen in answers])} ms | "
            f"between {percentiles(between)} ms |",
            flush=True,
        )
    print(f"{ROWS} clients have {speeds[1] / speeds[0]:.2f} times the speed of one")


async def long_prompt(url: str, options: argparse.Namespace) -> None:
    """Let a prompt of some 4,096 tokens come while another answer runs."""
    running = asyncio.create_task(ask(url, PROMPTS[0], 1000))
    await asyncio.sleep(1)
    seen = await ask(url, "one two three four " * 1020, 8)
    gaps = (await running).between
    bound = figures(url)["glm4q_pause_bound_seconds"]
    print(
        f"a long prompt had its first token after {seen.to_first:.1f} s; the running answer paused "
        f"for {1000 * max(gaps):.0f} ms at most (bound {1000 * bound:.0f}), "
        f"median {1000 * sorted(gaps)[len(gaps) // 2]:.0f}"
    )


async def full_queue(url: str, options: argparse.Namespace) -> None:
    """Let many clients ask at the same moment."""

    async def status() -> str:
        try:
            await ask(url, PROMPTS[0], 8)
        except RefusedError as error:
            return f"{error.status} (Retry-After {error.headers['retry-after']} s)"
        return "200"

    counted = Counter(await asyncio.gather(*(status() for _ in range(200))))
    print(f"200 clients at once, {ROWS} rows, a queue of {QUEUE}: {dict(counted)}")


async def dying_clients(url: str, options: argparse.Namespace) -> None:
    """Kill clients in the middle of their streams, and see how soon their rows are free."""
    raw = {**body(PROMPTS[0], 4000), "stream": True}
    code = f"import httpx2\nwith httpx2.stream('POST', '{url}{CHAT}', json={raw!r}, "
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


async def slow_readers(url: str, options: argparse.Namespace) -> None:
    """Open streams that nobody reads, and ask beside them."""
    raw = json.dumps({**body("Hi"), "max_tokens": None, "stream": True}).encode()
    host, port = url.removeprefix("http://").split(":")
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    readers = []
    for _ in range(ROWS - 1):
        reader = socket.create_connection((host, int(port)))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        readers.append(reader)
    seen = await ask(url, PROMPTS[1])
    print(
        f"beside {ROWS - 1} streams that nobody reads: first text after "
        f"{1000 * seen.to_first:.0f} ms, between {percentiles(seen.between)} ms"
    )
    for reader in readers:
        reader.close()


async def memory(url: str, options: argparse.Namespace) -> None:
    """Ask many short questions, and compare what the process holds before and after."""
    before = figures(url)

    async def go_on() -> None:
        for number in range(options.requests // ROWS):
            await ask(url, PROMPTS[number % len(PROMPTS)], 2)

    await asyncio.gather(*(go_on() for _ in range(ROWS)))
    after = figures(url)
    held, planned = "glm4q_held_bytes host", "glm4q_planned_bytes host"
    print(
        f"{options.requests} requests: {before[held] / 2**20:.0f} MiB before, "
        f"{after[held] / 2**20:.0f} after; planned {after[planned] / 2**20:.0f} and Python with "
        "torch beside"
    )


Check = Callable[[str, argparse.Namespace], Coroutine[Any, Any, None]]
CHECKS: dict[str, Check] = {
    "clients": many_clients,
    "long-prompt": long_prompt,
    "queue": full_queue,
    "dying": dying_clients,
    "slow-readers": slow_readers,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--seconds", type=float, default=120, help="of each load")
    parser.add_argument("--requests", type=int, default=2000, help="of the check of memory")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--max-pause", help="milliseconds, as an option of the server")
    parser.add_argument("--device", default="cpu", help="as an option of the server")
    options = parser.parse_args()
    more = ["--device", options.device]
    if options.max_pause is not None:
        more += ["--max-pause", options.max_pause]
    with serve(options.checkpoint, *OPTIONS, *more) as url:
        for name in options.checks:
            asyncio.run(CHECKS[name](url, options))
    print(describe_machine("uvicorn", "starlette"))


if __name__ == "__main__":
    main()
