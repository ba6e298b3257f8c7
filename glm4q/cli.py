"""`glm4q`: the only place above all three packages. Commands import their heavy halves when run."""

import logging
import os
import signal
import sys
from collections.abc import Callable

import typer
from typer.exceptions import TyperException

from calculator.errors import Glm4qError
from glm4q import __version__
from glm4q.commands.bench import bench
from glm4q.commands.calc import calc
from glm4q.commands.chat import chat
from quantize.commands.demo_model import demo_model
from quantize.commands.evaluate import evaluate
from quantize.commands.export import export
from quantize.commands.quantize import quantize
from quantize.commands.verify import verify

COMMANDS: dict[str, Callable[..., int | None]] = {
    "calc": calc,
    "quantize": quantize,
    "chat": chat,
    "bench": bench,
    "eval": evaluate,
    "verify": verify,
    "export": export,
    "demo-model": demo_model,
}

app = typer.Typer(
    name="glm4q",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for name, command in COMMANDS.items():
    app.command(name)(command)


@app.callback(invoke_without_command=True)
def glm4q(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    """Plan, quantize and chat with GLM-4-9B-Chat on the GPU you own."""
    if version:
        typer.echo(f"glm4q {__version__}")


def main(argv: list[str] | None = None) -> int:
    """Run one command. An error that is the input's fault becomes one line on stderr."""
    # torch's threads sleep when they have nothing to do: those of our kernels need the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # A terminated command unwinds, so that what it had half made is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logging.basicConfig(format="glm4q: %(levelname)s: %(message)s", level=logging.WARNING)
    try:
        return app(argv, prog_name="glm4q", standalone_mode=False) or 0
    except Glm4qError as error:
        return _fail(str(error))
    except TyperException as error:
        return _fail(error.format_message())
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone: nothing is left to be said
        return 1
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _fail(message: str) -> int:
    """One line. 2, not 1: `calc` answers 1 where the question is right and the model too big."""
    print(f"glm4q: {' '.join(message.split())}", file=sys.stderr)
    return 2
