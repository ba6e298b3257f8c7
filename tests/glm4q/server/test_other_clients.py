"""Programs that people use with a local model, unmodified: LangChain, llm, and npm's openai."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.glm4q.server.scripted import NAME, Running, serving
from tests.paths import ROOT

ANSWER = "Grüße, 世界! 🙂"
CALL = 'get_weather\n{"city": "Köln"}'
NODE_CLIENT = ROOT / "build" / "peers" / "npm" / "node_modules" / "openai"


@pytest.fixture(scope="module")
def running(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, ANSWER) as server:
        yield server


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sun in {city}"


def test_langchain_asks_streams_and_calls_tools(running: Running, chat_checkpoint: Path) -> None:
    from langchain_openai import ChatOpenAI

    def chat(server: Running) -> ChatOpenAI:
        url = f"{server.url}/v1"
        key = SecretStr("none")
        return ChatOpenAI(base_url=url, api_key=key, model=NAME, max_retries=0, stream_usage=True)

    assert chat(running).invoke("Hello").content == ANSWER
    pieces = list(chat(running).stream("Hello"))
    assert "".join(str(piece.content) for piece in pieces) == ANSWER
    last = next(piece.usage_metadata for piece in reversed(pieces) if piece.usage_metadata)
    assert last["output_tokens"] == len(ANSWER.encode())
    with serving(chat_checkpoint, CALL) as calling:
        (call,) = chat(calling).bind_tools([get_weather]).invoke("Weather?").tool_calls
        assert (call["name"], call["args"]) == ("get_weather", {"city": "Köln"})
        assert "[tools]" in calling.last_prompt


def test_llm_prints_the_answer(running: Running, tmp_path: Path) -> None:
    model = {"model_id": NAME, "model_name": NAME, "api_base": f"{running.url}/v1"}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""}
    command = [sys.executable, "-m", "llm", "-m", NAME, "Hello", "--key", "none", "--no-log"]
    printed = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    assert printed.stdout.decode().strip() == ANSWER


SCRIPT = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Hello" }];
const model = process.argv[3];
const whole = await client.chat.completions.create({ model, messages });
let streamed = "";
for await (const piece of await client.chat.completions.create({ model, messages, stream: true }))
  streamed += piece.choices[0]?.delta?.content ?? "";
const response = await client.responses.create({ model, input: "Hello" });
let status = 0;
try { await client.chat.completions.create({ model: "other", messages }); }
catch (error) { status = error.status; }
const answers = [whole.choices[0].message.content, streamed, response.output_text, status];
console.log(JSON.stringify(answers));
"""


def test_the_openai_package_of_npm_gets_the_same_answers(running: Running) -> None:
    node = shutil.which("node")
    if node is None or not NODE_CLIENT.is_dir():
        pytest.skip("needs node and `make npm-clients`")
    script = NODE_CLIENT.parent.parent / "ask.mjs"
    script.write_text(SCRIPT)
    command = [node, str(script), running.url, NAME]
    printed = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert json.loads(printed.stdout) == [ANSWER, ANSWER, ANSWER, 404]
