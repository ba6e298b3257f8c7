"""Code in the cage computes, and cannot get out of it: each way out is tried."""

import importlib.util
import io
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from calculator.errors import OptionError
from glm4q.tools.cage import launch
from glm4q.tools.cage.python import PythonCage, Result


@pytest.fixture(scope="module", params=["bubblewrap", "namespaces"])
def cage(request: pytest.FixtureRequest) -> Iterator[PythonCage]:
    """A cage of each kind that opens here."""
    with pytest.MonkeyPatch.context() as patch:
        other = {"bubblewrap": "_namespaces", "namespaces": "_bubblewrap"}[request.param]
        patch.setattr(launch, other, lambda program: None)
        try:
            opened = PythonCage(seconds=20)
        except OptionError:
            pytest.skip(f"no cage by {request.param} opens on this machine")
    with closing(opened):
        yield opened


def test_names_live_on_and_a_last_value_is_shown(cage: PythonCage) -> None:
    assert cage.run("x = 20\nprint('hi')").output == "hi\n"
    assert cage.run("x + 1").output == "21\n"
    assert cage.run("1 / 0").output.endswith("ZeroDivisionError: division by zero\n")
    assert "SyntaxError" in cage.run("def").output
    assert cage.run("x").output == "20\n"


def test_files_come_back(cage: PythonCage) -> None:
    result = cage.run("open('a.txt', 'w').write('text')")
    assert result.files == {"a.txt": b"text"}
    assert cage.run("1").files == {}


PLOT = """
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.plot([1, 4, 9])
print(len(axes.lines))
"""


def test_a_figure_that_the_code_draws_comes_back_as_a_file(cage: PythonCage) -> None:
    if not importlib.util.find_spec("matplotlib"):
        pytest.skip("matplotlib is not installed")
    result = cage.run(PLOT)
    assert result.output == "1\n"
    ((name, picture),) = result.files.items()
    assert name == "figure-1.png"
    assert Image.open(io.BytesIO(picture)).size == (640, 480)
    assert cage.run("plt.get_fignums()") == Result("[]\n")  # it is given back once
    titled = cage.run("plt.title('2')\nplt.savefig('mine.png')")
    assert titled.files.keys() == {"figure-1.png", "mine.png"}


@pytest.mark.parametrize("other", ["_namespaces", "_bubblewrap"])
def test_packages_of_the_user_are_seen_and_nothing_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """They may lie in /tmp, which is another directory in the cage."""
    packages = tmp_path / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "installed.py").write_text("place = __file__")
    (tmp_path / "lib" / "secret.py").write_text("word = 1")
    monkeypatch.setattr("sys.path", [*sys.path, str(packages), str(tmp_path / "lib")])
    monkeypatch.setattr(launch, other, lambda program: None)
    try:
        opened = PythonCage(seconds=20)
    except OptionError:
        pytest.skip("no such cage opens on this machine")
    with closing(opened) as cage:
        assert str(packages) in cage.run("import installed; installed.place").output
        assert "ModuleNotFoundError" in cage.run("import secret").output
        assert cage.run("import os; sorted(os.listdir('.'))").output == "[]\n"
        for file, mode in ((tmp_path / "lib" / "secret.py", "r"), (packages / "new.py", "w")):
            assert "Traceback" in cage.run(f"open({str(file)!r}, {mode!r})").output


def test_code_does_not_end_the_session_by_exit(cage: PythonCage) -> None:
    cage.run("x = 5")
    assert "SystemExit" in cage.run("import sys; sys.exit(3)").output
    assert cage.run("x").output == "5\n"


ESCAPES = {
    "home": "import os; os.listdir('/home')",
    "passwords": "open('/etc/passwd').read()",
    "socket": "import socket; socket.create_connection(('127.0.0.1', PORT), 2)",
    "dns": "import socket; socket.getaddrinfo('example.org', 80)",
    "fork": "import os\nwhile True: os.fork()",
    "program": "import subprocess; subprocess.run(['/bin/true'])",
    "ptrace": "import ctypes\n"
    "if ctypes.CDLL(None, use_errno=True).ptrace(16, 1, 0, 0):\n"
    "    raise OSError(ctypes.get_errno(), 'ptrace')",
    "mount": "import ctypes\n"
    "if ctypes.CDLL(None, use_errno=True).mount(b'none', b'/tmp', b'tmpfs', 0, None):\n"
    "    raise OSError(ctypes.get_errno(), 'mount')",
    "memory": "x = bytearray(8 << 30)",
    "system": "open('/usr/bin/evil', 'w')",
    "root": "open('/evil', 'w')",
    "limit": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "disk": "for i in range(99): open(f'f{i}', 'wb').write(bytes(60 << 20))",
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_way_out(cage: PythonCage, escape: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = ESCAPES[escape].replace("PORT", str(server.getsockname()[1]))
        output = cage.run(code).output
    assert "Traceback" in output
    cage.run("import glob, os\nfor file in glob.glob('f*'): os.remove(file)")
    assert cage.run("1 + 1").output == "2\n"


def test_a_link_out_leads_nowhere(cage: PythonCage, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    result = cage.run(f"import os\nos.symlink({str(secret)!r}, 'link')\nopen('link').read()")
    assert "FileNotFoundError" in result.output
    assert result.files == {}


def test_the_environment_is_not_shown(cage: PythonCage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM4Q_SECRET", "secret")
    assert "secret" not in cage.run("import os\nos.environ").output
    assert str(os.getpid()) not in cage.run("import os\nos.listdir('/proc')").output.split("'")


def test_endless_output_is_cut(cage: PythonCage) -> None:
    output = cage.run("for _ in range(1000): print('x' * 1000)").output
    assert output.endswith("characters more are left out]")
    assert len(output) < 100_000


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("while True: pass", "took more than 1 seconds"),
        ("import os; os._exit(0)", "ended the session"),
        ("import os; os.write(3, b'{}\\n')", "broke the session"),
        ("import os\nwhile True: os.write(3, bytes(1 << 20))", "more than it may"),
    ],
)
def test_a_session_that_breaks_begins_anew(code: str, reason: str) -> None:
    try:
        opened = PythonCage(seconds=1)
    except OptionError:
        pytest.skip("no cage opens on this machine")
    with closing(opened) as cage:
        cage._seconds = 20
        cage.run("x = 1")  # the first call waits for Python to start
        cage._seconds = 1 if "seconds" in reason else 20
        result = cage.run(code)
        assert reason in result.output
        assert "all names are forgotten" in result.output
        cage._seconds = 20
        assert "NameError" in cage.run("x").output


def test_without_any_cage_the_tool_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OptionError, match="install bubblewrap"):
        PythonCage()


def test_closing_ends_what_runs_inside() -> None:
    try:
        cage = PythonCage(seconds=20)
    except OptionError:
        pytest.skip("no cage opens on this machine")
    cage.run("import threading, time\nthreading.Thread(target=time.sleep, args=[60]).start()")
    process = cage._process
    assert process is not None
    begun = time.monotonic()
    cage.close()
    assert process.returncode is not None
    assert time.monotonic() - begun < 10
