"""The user's own defaults: they hold, an option overrides them, and a wrong one is named."""

import json
from pathlib import Path

import pytest

from glm4q.cli import main

CALC = ("calc", "glm-4-9b-chat", "--json")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "glm4q").mkdir()
    return tmp_path / "glm4q" / "glm4q.toml"


def _context(capsys: pytest.CaptureFixture[str], *options: str) -> int:
    assert main([*CALC, *options]) == 0
    return int(json.loads(capsys.readouterr().out)["context"])


def test_the_file_sets_defaults_and_an_option_overrides_them(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text('\ufeff[calc]\ncontext = "4k"\nweights = "int4"\n')
    assert _context(capsys) == 4096
    assert _context(capsys, "--context", "2k") == 2048
    config.write_text("[calc]\ncontext = 1024\n")
    assert _context(capsys) == 1024


def test_config_shows_values_and_their_source(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    config.write_text('[chat]\ntemperature = 0.3\nyes-tools = ["add"]\nloop-guard = false\n')
    assert main(["config"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["chat", "--temperature", "0.3", str(config)] in shown
    assert ["chat", "--yes-tools", "add", str(config)] in shown
    assert ["chat", "--loop-guard", "false", str(config)] in shown
    assert len(shown) == 4
    assert main(["config", "--command", "serve"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["serve", "--port", "8080", "default"] in shown


def test_the_directory_of_the_store_holds_for_every_command(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = tmp_path / "big disk" / "mine"
    entry.mkdir(parents=True)
    (entry / "config.json").write_text("{}")
    config.write_text(f'store = "{entry.parent}"\n[rm]\nstore = "{tmp_path / "other"}"\n')
    assert main(["list"]) == 0
    assert "mine" in capsys.readouterr().out
    assert main(["rm", "mine"]) == 2  # its own table goes before
    assert "mine" in capsys.readouterr().err
    assert entry.is_dir()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[calc]\ncontxt = 1\n", "calc.contxt: glm4q calc has no --contxt"),
        ("[clac]\ncontext = 1\n", "clac is no command"),
        ("context = 1\n", "context is no command"),
        ("[calc\n", "is not TOML"),
        ("store = 'a'\n[calc]\nstore = 'b'\n", "calc.store: glm4q calc has no --store"),
        ("[calc]\nusers = 'two'\n", "calc.users must be a whole number, not 'two'"),
        ("[calc]\ncontext = true\n", "calc.context must be text or a number, not True"),
        ("[calc]\ncontext = 'far'\n", "context is set in"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_key(
    text: str, message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(text)
    assert main([*CALC]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert str(config) in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_file_of_the_current_directory_is_not_read(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "glm4q.toml").write_text("[calc]\ncontext = 1024\n")
    monkeypatch.chdir(tmp_path / "here")
    assert _context(capsys) != 1024
