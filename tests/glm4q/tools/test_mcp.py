"""Tools of MCP servers: one from PyPI as it is, and a small one by stdio and by HTTP."""

import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from calculator.errors import OptionError
from glm4q.tools.calls import ToolCall
from glm4q.tools.functions import Tool, Toolbox
from glm4q.tools.mcp.server import MOST_TOOLS, mcp_tools

SCRIPT = Path(__file__).parent / "mcp_server.py"
PAGED = Path(__file__).parent / "paged_mcp_server.py"
STDIO = shlex.join([sys.executable, str(SCRIPT), "stdio"])


@pytest.fixture(scope="module")
def tools() -> Iterator[dict[str, Tool]]:
    with mcp_tools(STDIO, seconds=5) as offered:
        yield {tool.name: tool for tool in offered}


def test_a_server_from_pypi_tells_the_time() -> None:
    with mcp_tools(f"{shlex.quote(sys.executable)} -m mcp_server_time") as offered:
        toolbox = Toolbox(offered)
        offers = {offer["function"]["name"]: offer["function"] for offer in toolbox.offers}
        assert offers["convert_time"]["parameters"]["type"] == "object"
        call = {"source_timezone": "Asia/Tokyo", "time": "12:30", "target_timezone": "UTC"}
        assert "03:30:00" in toolbox.run(ToolCall("convert_time", call))
        wrong = toolbox.run(ToolCall("get_current_time", {"timezone": "Nowhere"}))
        assert wrong.startswith("error: ")
        assert "Invalid timezone" in wrong


def test_what_the_model_reads_of_each_result(tools: dict[str, Tool]) -> None:
    assert tools["add"].run({"first": 20, "second": 22}) == "42"
    assert tools["picture"].run({}) == (
        "a red square\n[image of type image/png is left out: only text can be read]"
    )
    failed = tools["fail"].run({})
    assert failed.startswith("error: ")
    assert "the disk is on fire" in failed
    assert tools["add"].run({"first": "x", "second": 1}).startswith("error: ")


def test_a_call_that_takes_too_long_and_a_server_that_dies_are_lines() -> None:
    with mcp_tools(STDIO, seconds=0.3) as offered:
        tools = {tool.name: tool for tool in offered}
        assert "timed out" in tools["sleep"].run({"seconds": 2.0})
    with mcp_tools(STDIO, seconds=5) as offered:
        tools = {tool.name: tool for tool in offered}
        for _ in range(2):
            died = tools["die"].run({})
            assert died.startswith("error: the server of die: ")
            assert "\n" not in died


def test_a_server_is_reached_by_its_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, str(SCRIPT), "http", str(port)])
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        with mcp_tools(f"http://127.0.0.1:{port}/mcp") as offered:
            toolbox = Toolbox(offered)
            assert toolbox.run(ToolCall("add", {"first": 1, "second": 2})) == "3"
            server.kill()
            server.wait()
            assert toolbox.run(ToolCall("add", {"first": 1, "second": 2})).startswith("error: ")
    finally:
        server.kill()
        server.wait()


def test_the_end_of_the_block_ends_the_process(tmp_path: Path) -> None:
    """Also one that does not end where its input does."""
    note = tmp_path / "pid"
    script = tmp_path / "stubborn.py"
    script.write_text(
        f"import os, runpy, sys, threading, time\n"
        f"open({str(note)!r}, 'w').write(str(os.getpid()))\n"
        f"threading.Thread(target=time.sleep, args=[60]).start()\n"
        f"sys.argv = ['x', 'stdio']\nrunpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    with mcp_tools(shlex.join([sys.executable, str(script)])):
        assert Path(f"/proc/{note.read_text()}").exists()
    assert not Path(f"/proc/{note.read_text()}").exists()


def _paged(tools: int, page: int) -> str:
    return shlex.join([sys.executable, str(PAGED), str(tools), str(page)])


def test_all_pages_of_a_list_of_tools_are_read() -> None:
    with mcp_tools(_paged(MOST_TOOLS, 50)) as offered:
        assert [tool.name for tool in offered] == [f"tool_{n}" for n in range(MOST_TOOLS)]
        assert offered[-1].run({"a": 1}) == '["tool_127", {"a": 1}]'


@pytest.mark.parametrize(
    ("tools", "page", "reason"),
    [
        (MOST_TOOLS + 1, 50, "it offers more than 128 tools"),
        (MOST_TOOLS + 1, 500, "it offers more than 128 tools"),
        (1, 0, "its list of tools does not end after 128 pages"),
        (0, 1, "the server offers no tools"),
    ],
)
def test_a_list_without_tools_or_with_too_many_is_one_line(
    tools: int, page: int, reason: str
) -> None:
    with ExitStack() as opened, pytest.raises(OptionError) as refused:
        opened.enter_context(mcp_tools(_paged(tools, page)))
    assert str(refused.value).endswith(reason)


def test_two_servers_with_one_name_are_refused(tools: dict[str, Tool]) -> None:
    with pytest.raises(OptionError, match="two tools are called add"):
        Toolbox([*tools.values(), tools["add"]])


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("nowhere-to-be-found", "No such file"),
        ("sh -c 'echo broken pipe >&2; exit 1'", "Connection closed; it wrote: broken pipe"),
        ("http://127.0.0.1:9/mcp", "All connection attempts failed"),
        ("'", "cannot be read"),
        ("", "not an empty text"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_line(place: str, reason: str) -> None:
    with ExitStack() as opened, pytest.raises(OptionError) as refused:
        opened.enter_context(mcp_tools(place))
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)
