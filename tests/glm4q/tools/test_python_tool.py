"""The cage as a tool: state from call to call, and files that overwrite nothing."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from calculator.errors import OptionError
from glm4q.tools.python_tool import python_tool, save_files


def test_names_live_on_and_files_reach_the_user(tmp_path: Path) -> None:
    announced: list[str] = []
    with ExitStack() as opened:
        try:
            tool = opened.enter_context(python_tool(tmp_path / "files", announced.append))
        except OptionError:
            pytest.skip("no cage opens on this machine")
        assert tool.run({"code": "x = 20"}) == ""
        result = tool.run({"code": "file = open('a.txt', 'w').write('hi'); print(x)"})
    assert result.startswith("20\n")
    assert "a.txt" in result
    assert (tmp_path / "files" / "a.txt").read_bytes() == b"hi"
    assert announced == [f"python has written {tmp_path / 'files' / 'a.txt'}"]


def test_files_keep_what_lies_there_and_stay_in_the_directory(tmp_path: Path) -> None:
    directory, secret = tmp_path / "files", tmp_path / "secret"
    directory.mkdir()
    (directory / "plot.png").symlink_to(secret)
    written = save_files({"plot.png": b"1", "..": b"2", "": b"3"}, directory)
    assert written == [directory / "plot-2.png"]
    assert not secret.exists()
