"""Claude Code and Codex themselves, from npm, solve a task of one command with a scripted model."""

import json
from pathlib import Path

import pytest

from tests.glm4q.server.agents.programs import Agent
from tests.glm4q.server.scripted import serving

ANSWER = "It says hi."
CALLS = {
    "claude": ("Bash", {"command": "echo hi", "description": "Say hi"}),
    "codex": ("exec_command", {"cmd": "echo hi"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_program_runs_the_tool_that_is_called(
    name: str, chat_checkpoint: Path, tmp_path: Path
) -> None:
    agent, (tool, arguments) = Agent.named(name, tmp_path), CALLS[name]
    with serving(chat_checkpoint, ANSWER, context=200_000) as running:
        running.says_first(f"{tool}\n{json.dumps(arguments)}")
        printed = agent.ask(running.url, "Say hi.")
        assert ANSWER in printed, printed
        first, second = (
            running.tokenizer.decode(prompt) for prompt in running.decoder.prompts[-2:]
        )
        assert second.startswith(first.removesuffix("[assistant]"))
        assert "[tool]" in second.removeprefix(first)


def test_claude_code_s_prompts_begin_alike_from_one_start_to_the_next(
    chat_checkpoint: Path, tmp_path: Path
) -> None:
    """All before the question is the same, so that it is read once."""
    agent = Agent.named("claude", tmp_path)
    questions = ("Name a green fruit.", "Name a blue fish.")
    with serving(chat_checkpoint, ANSWER, context=200_000) as running:
        begins = []
        for question in questions:
            assert ANSWER in agent.ask(running.url, question)
            begins.append(running.last_prompt.partition(question)[0])
    assert begins[0] == begins[1]
    assert len(begins[0]) > 5000
