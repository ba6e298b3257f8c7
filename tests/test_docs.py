"""README and docs: every block runs or is compared, every link leads somewhere."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calculator.checkpoint.stored import StoredModel
from calculator.memory.settings import RESERVE, Settings
from calculator.model.formats import WeightFormat
from glm4q.cli import main
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe, read_recipe
from tests.chat_checkpoint import take_likeliest
from tests.markdown import PAGES, README, Block, blocks, languages, links, words
from tests.paths import ROOT
from tests.plans import half_way

MAKEFILE = (ROOT / "Makefile").read_text()
INT4, SOURCE = "glm-4-9b-chat-int4", "THUDM/glm-4-9b-chat"
"""Names that the pages use. Here they are a tiny model's."""


@pytest.fixture(scope="module")
def int4(chat_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in INT4."""
    directory = tmp_path_factory.mktemp("docs") / "int4"
    quantize_checkpoint(StoredModel.open(chat_checkpoint), directory, Recipe(WeightFormat(4, 128)))
    return directory


@pytest.fixture
def place(
    chat_checkpoint: Path,
    int4: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    short_texts: None,
) -> Path:
    """A working directory in which the names of the pages exist."""
    (tmp_path / SOURCE).parent.mkdir()
    (tmp_path / SOURCE).symlink_to(chat_checkpoint)
    shutil.copytree(int4, tmp_path / INT4)
    monkeypatch.chdir(tmp_path)
    bin_directory = Path(sys.executable).parent  # `python` on a page is the one that runs the tests
    monkeypatch.setenv("PATH", str(bin_directory), prepend=os.pathsep)
    return tmp_path


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert languages() <= {"python", "sh", "console", "toml", "text"}


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_blocks_run(block: Block, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    take_likeliest(place / INT4)
    exec(compile(block.text, str(block), "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_shell_blocks_run(
    block: Block, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in block.text.splitlines():
        command, *arguments = shlex.split(line, comments=True)
        if command == "make":
            assert re.search(rf"^{arguments[0]}:", MAKEFILE, re.M), line
        elif command == "pip":
            assert arguments == ["install", "-c", "constraints.txt", "."]
        elif "|" in line:
            subprocess.run(
                line.replace("glm4q", f"{sys.executable} -m glm4q"), shell=True, check=True
            )
        else:
            assert command == "glm4q", line
            _run(arguments, place, monkeypatch)


def _run(arguments: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments[0] == "quantize":
        shutil.rmtree(place / INT4)
        arguments = [*arguments, "--samples", "4", "--length", "64"]
        if "--for" in arguments:
            arguments = _for_a_tiny_card(arguments, monkeypatch)
    if arguments[0] == "chat" and "--prompt" not in arguments:
        monkeypatch.setattr(sys, "stdin", io.StringIO("What is GPTQ?"))
    assert main(arguments) == 0


def _for_a_tiny_card(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the card by one that the tiny model fills, whose context is shorter too."""
    # One segment of the allocator is larger than this model.
    monkeypatch.setattr("calculator.memory.plan._weights_slack", lambda placed: 0)
    config = StoredModel.open(Path(SOURCE)).config
    settings = Settings(256, kv="int8", embedding="host", display_reserve=RESERVE["gpu"])
    card, context = (arguments.index(name) + 1 for name in ("--for", "--context"))
    arguments[card - 1 : card + 1] = "--vram", half_way(config, settings, group_size="128")
    arguments[context] = "256"
    return arguments


def test_recipes_on_the_pages_are_read(tmp_path: Path) -> None:
    recipes = [block for block in blocks("toml") if block.page.name == "quantize.md"]
    assert recipes
    for block in recipes:
        (tmp_path / "recipe.toml").write_text(block.text)
        assert read_recipe(tmp_path / "recipe.toml").rules


def calc_answers() -> list[tuple[str, str]]:
    """(arguments, answer) of each `glm4q calc` of a preset."""
    shown = [each for block in blocks("console") for each in block.commands()]
    return [
        (command.removeprefix("glm4q "), answer)
        for command, answer in shown
        if command.startswith("glm4q calc") and "build/" not in command
    ]


def test_answers_of_calc_are_current(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    answers = calc_answers()
    assert len(answers) == 3
    for arguments, answer in answers:
        assert main(shlex.split(arguments)) == 0
        assert capsys.readouterr().out.split() == answer.split()


def test_the_picture_is_current(tmp_path: Path) -> None:
    (arguments, _), *_ = calc_answers()
    drawn = tmp_path / "memory.svg"
    assert main([*shlex.split(arguments), "--svg", str(drawn)]) == 0
    assert drawn.read_text() == (ROOT / "docs" / "memory.svg").read_text()


def test_the_demo_on_its_page_is_what_make_demo_runs() -> None:
    (block,) = (block for block in blocks("console") if block.page.name == "demo.md")
    recipe = re.search(r"^demo:.*?\n\n", MAKEFILE, re.M | re.S)
    assert recipe
    lines = recipe[0].replace("$(BIN)/", "").replace("$(DEMO)", "build/demo")
    question = re.search(r"^QUESTION := (.*)$", MAKEFILE, re.M)
    assert question
    lines = lines.replace("$(QUESTION)", question[1])
    ran = [line.strip() for line in lines.splitlines() if line.strip().startswith("glm4q")]
    assert [command for command, _ in block.commands()] == [
        line for line in ran if not line.startswith("glm4q calc")
    ]


@pytest.mark.demo
def test_the_comparison_of_plan_and_memory_has_the_bytes_that_are_printed(
    quantized_demo: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = (block for block in blocks("console") if block.page.name == "memory.md")
    ((command, answer),) = block.commands()
    arguments = shlex.split(command.replace("build/demo/int4", str(quantized_demo(4))))[1:]
    assert main(arguments) == 0
    # Scratch and what operators take depend on the machine's instruction sets.
    exact = [line for line in answer.splitlines() if re.match("linear|norms|KV|embedding", line)]
    assert len(exact) == 6
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert all(line.split() in printed for line in exact)


def test_links_lead_to_files_and_every_page_is_reachable_from_readme() -> None:
    for page in PAGES:
        missing = [str(target) for target in links(page) if not target.exists()]
        assert not missing, f"{page.name} links to {missing}"
    assert {page for page in PAGES if page != README} <= links(README)


def test_readme_is_short() -> None:
    text = README.read_text()
    assert words(text) < 1000
    first_screen, _, _ = text.partition("## What to read")
    assert words(first_screen) < 300
    for needed in ("pip install", "```sh\nglm4q calc", "from glm4q import LLM"):
        assert needed in first_screen


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = {name for name in re.findall(r"`([\w./]+/[\w.]+)`", text) if "NAME" not in name}
    named |= set(re.findall(r"^\| ([\w/]+/) \|", text, re.M))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_config_file_of_the_page_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = (block for block in blocks("toml") if block.page.name == "chat.md")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "glm4q").mkdir()
    (tmp_path / "glm4q" / "glm4q.toml").write_text(block.text)
    assert main(["config"]) == 0
    assert "chat --kv" in capsys.readouterr().out


def test_the_picture_of_the_folders_has_folders_that_exist() -> None:
    (block,) = (block for block in blocks("text") if block.page.name == "architecture.md")
    rooms = [
        path.name
        for name in ("calculator", "glm4q", "quantize")
        for path in (ROOT / name).iterdir()
    ]
    left = re.sub(r" {2,}(makes|runs|plans).*", "", block.text)
    drawn = {word for word in re.findall(r"[\w.]+", left) if word not in ("C",)}
    known = {*rooms, "calculator", "glm4q", "quantize", "cpu", "gpu", "kv"}
    assert drawn <= known
    table = (ROOT / "docs" / "architecture.md").read_text()
    for name in ("calculator", "glm4q", "quantize"):
        for folder in (ROOT / name).iterdir():
            if (folder / "__init__.py").is_file():
                assert f"| {name}/{folder.name}/ |" in table


def test_a_command_on_a_page_that_is_not_run_still_parses() -> None:
    """Commands in running text, in backticks, have options that exist."""
    from glm4q.cli import COMMANDS
    from glm4q.commands.process.lazy import load_command

    for page in PAGES:
        for line in re.findall(r"`glm4q ([^`]+)`", page.read_text()):
            name, *arguments = shlex.split(line.replace("\n", " "))
            if name in COMMANDS:
                known = {
                    option
                    for param in load_command(name, COMMANDS[name]).params
                    for option in param.opts
                }
                used = {word for word in arguments if word.startswith("-")}
                assert used <= known | {"--help"}, f"{page.name}: glm4q {line}"
