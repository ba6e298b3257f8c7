"""Claude Code and Codex, unmodified from npm (`make npm-agents`), asking the server of a test."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.glm4q.server.scripted import NAME
from tests.paths import ROOT

PROGRAMS = ROOT / "build" / "peers" / "npm-agents" / "node_modules" / ".bin"
CODEX_CONFIG = """
model = "{name}"
model_provider = "glm4q"
web_search = "disabled"

[features]
multi_agent = false

[model_providers.glm4q]
name = "glm4q"
base_url = "{url}/v1"
wire_api = "responses"
"""
"""docs/serve.md shows the same."""


@dataclass(frozen=True)
class Agent:
    """A program with a home of its own, in which it finds nothing of whoever runs the tests."""

    program: Path
    home: Path

    @classmethod
    def named(cls, name: str, home: Path) -> "Agent":
        """Find a program. Skips the test where it is not installed."""
        if not (PROGRAMS / name).exists():
            pytest.skip("needs `make npm-agents`")
        return cls(PROGRAMS / name, home)

    def ask(self, url: str, question: str) -> str:
        """Let the program answer in a directory of its own, and return what it prints."""
        directory = self.home / "project"
        directory.mkdir(parents=True, exist_ok=True)
        run = self._claude if self.program.name == "claude" else self._codex
        arguments, environment = run(url)
        ran = subprocess.run(
            [str(self.program), *arguments, question],
            cwd=directory,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return ran.stdout if ran.returncode == 0 else ran.stdout + ran.stderr

    @staticmethod
    def _claude(url: str) -> tuple[list[str], dict[str, str]]:
        environment = {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "none",
            "ANTHROPIC_MODEL": NAME,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        return ["--allowedTools=Bash(echo:*)", "-p"], environment

    def _codex(self, url: str) -> tuple[list[str], dict[str, str]]:
        config = self.home / ".codex" / "config.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(CODEX_CONFIG.format(name=NAME, url=url))
        return ["exec", "--skip-git-repo-check"], {}
