"""`glm4q serve` with a real model: its answers are those of a chat, and SIGTERM lets them end."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import openai
import pytest

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import WeightFormat
from calculator.questions.fit import Wish
from glm4q.cli import main
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests.instruction_sets import program

QUESTIONS = ["Hello", "What is GPTQ?", "And a longer one, with more words in it"]
GREEDY = SamplingParams(temperature=0, max_tokens=12)


@pytest.fixture(scope="module")
def int8(chat_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in INT8, whose tokens have the same bits in every chunk of a prompt.

    Those of bf16 weights do not on a CPU with bf16 instructions: torch multiplies long chunks.
    """
    directory = tmp_path_factory.mktemp("serve") / "int8"
    quantize_checkpoint(StoredModel.open(chat_checkpoint), directory, Recipe(WeightFormat(8, 128)))
    return directory


@contextmanager
def served(
    checkpoint: Path, *options: str, newest: str | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """newest: the newest instruction set that the server finds."""
    command = [*program(newest), "serve", str(checkpoint), "--port", "0"]
    command += ["--parallel", "2", "--context", "512", "--name", "tiny", "--device", "cpu"]
    command += options
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, "")
            yield (
                process,
                next(line.split()[-1] for line in lines if "serving at" in line).rstrip('"}'),
            )
        finally:
            process.kill()


def ask(url: str, question: str) -> str | None:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=GREEDY.max_tokens,
        )
    return answer.choices[0].message.content


def check_what_is_held(url: str) -> None:
    """The page shows the tensors of the run beside its plan."""
    machine = httpx2.get(f"{url}/v1/page/machine").json()
    planned, held = machine["planned"], machine["held"]
    assert (held["weights"], held["KV cache"]) == (planned["weights"], planned["KV cache"])
    assert 0 < held["workspace"] <= planned["workspace"]
    assert machine["process_bytes"] > sum(held.values())
    assert len(machine["rows"]) == 2
    assert all(0 < tokens <= 512 for tokens in machine["rows"])
    start = httpx2.get(f"{url}/v1/page/calculator").json()["start"]
    assert (start["context"], start["users"]) == (512, 2)


def test_clients_at_once_get_the_answers_of_a_chat_and_a_stream_ends_after_sigterm(
    int8: Path, request: pytest.FixtureRequest
) -> None:
    newest = request.config.getoption("--instruction-set")
    llm = LLM.load(int8, device="cpu", wish=Wish(context=512))
    expected = ["".join(llm.session().ask(question, GREEDY)) for question in QUESTIONS]
    with served(int8, newest=newest) as (process, url):
        with ThreadPoolExecutor(8) as pool:  # more clients than rows
            answers = list(pool.map(lambda question: ask(url, question), QUESTIONS * 4))
        check_what_is_held(url.removesuffix("/v1"))
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "Hello"}],
                temperature=0,
                max_tokens=300,
                stream=True,
            )
            next(iter(stream))
            process.send_signal(signal.SIGTERM)
            pieces = list(stream)
        assert process.wait(30) == 0
    assert answers == expected * 4
    assert pieces[-1].choices[0].finish_reason in ("stop", "length")


def test_the_memory_of_a_model_is_given_back_and_its_answers_stay_the_same(
    chat_checkpoint: Path,
) -> None:
    options = ("--idle-unload", "0.02", "--log-format", "json")
    with served(chat_checkpoint, *options) as (process, url):
        first = ask(url, "Hello")
        assert process.stderr is not None
        events = (json.loads(line) for line in process.stderr)  # every line is JSON
        assert next(event for event in events if event["event"] == "unloaded")
        assert ask(url, "Hello") == first
        assert next(event for event in events if event["event"] == "loaded")["seconds"] > 0
        process.send_signal(signal.SIGTERM)
        left = process.stderr.read()
        assert process.wait(30) == 0
    assert "Hello" not in left


def test_what_cannot_be_served_is_said_before_anything_is_loaded(
    chat_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(chat_checkpoint), "--host", "0.0.0.0"]) == 2
    assert "--api-key-file" in capsys.readouterr().err
    assert main(["serve", str(chat_checkpoint), "--parallel", "0"]) == 2
    assert "parallel must be at least 1, not 0" in capsys.readouterr().err
    wrong = {
        "--cors-origin": ("*", "cors origin"),
        "--idle-unload": ("0", "idle unload must be above 0"),
        "--max-pause": ("0", "max pause must be above 0"),
        "--time-limit": ("-1", "time limit must be above 0 and at most 31536000 seconds, not -1"),
        "--log-format": ("xml", "log format must be text or json, not xml"),
        "--dialect": ("klingon", "klingon"),
    }
    for option, (value, problem) in wrong.items():
        assert main(["serve", str(chat_checkpoint), option, value]) == 2
        assert problem in capsys.readouterr().err


def test_a_base_model_is_named_as_one(
    chat_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("glm4q.server.listen.run", lambda app, listener, worker: None)
    shutil.copytree(chat_checkpoint, tmp_path / "glm-4-9b-base")
    for checkpoint in (chat_checkpoint, tmp_path / "glm-4-9b-base"):
        command = ["serve", str(checkpoint), "--port", "0", "--context", "64", "--device", "cpu"]
        assert main(command) == 0
        notes = capsys.readouterr().err.splitlines()
        named = [note for note in notes if "is a base model by its name" in note]
        assert len(named) == (checkpoint != chat_checkpoint)


def test_the_command_of_vllm_is_printed_with_what_its_cards_hold(
    chat_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["serve", str(chat_checkpoint), "--engine", "vllm", "--context", "4k"]
    assert main([*command, "--print", "--gpu", "3060", "--parallel", "3", "--name", "tiny"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split()[:3] == ["vllm", "serve", str(chat_checkpoint)]
    options = printed.out.split()[3:]
    named = dict(zip(options[::2], options[1::2], strict=True))
    assert (named["--max-num-seqs"], named["--max-model-len"]) == ("3", "4096")
    assert (named["--tensor-parallel-size"], named["--data-parallel-size"]) == ("1", "1")
    assert named["--served-model-name"] == "tiny"
    assert "3 users at once, 4,096 tokens each: 1 copy" in printed.err
    for options, problem in (
        ([], "--print prints its command"),
        (["--print"], "name one with --gpu"),
    ):
        assert main([*command, *options]) == 2
        assert problem in capsys.readouterr().err
    assert main(["serve", str(chat_checkpoint), "--print"]) == 2
    assert "for --engine vllm" in capsys.readouterr().err
