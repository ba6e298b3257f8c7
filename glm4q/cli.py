"""`glm4q`: the table of commands, and how errors end one. Commands are imported when asked for."""

import errno
import sys
from contextlib import suppress
from typing import Annotated

import typer
from typer.exceptions import TyperException

from calculator.errors import Glm4qError, is_out_of_memory
from glm4q import __version__
from glm4q.commands.process.lazy import CommandEntry, LazyGroup
from glm4q.commands.process.signals import (
    end_at_once_on_stops,
    stops_as_before,
)
from glm4q.commands.process.streams import (
    forget_width_of_nothing,
    open_closed_streams,
    tolerate_encodings,
)

USE, MAKE, CHECK = "Plan and chat", "Make checkpoints", "Measure and check"

COMMANDS: dict[str, CommandEntry] = {
    "calc": CommandEntry(
        "glm4q.commands.calc",
        "calc",
        "Show what a model takes in memory, and whether it fits a card.",
        USE,
    ),
    "chat": CommandEntry(
        "glm4q.commands.chat", "chat", "Chat with a model on a GPU or the CPU.", USE
    ),
    "serve": CommandEntry(
        "glm4q.commands.serve", "serve", "Serve a model to OpenAI's and Anthropic's clients.", USE
    ),
    "pull": CommandEntry(
        "quantize.commands.pull", "pull", "Make the checkpoint of a model by its name.", MAKE
    ),
    "list": CommandEntry(
        "quantize.commands.entries", "list_entries", "List the checkpoints made by name.", MAKE
    ),
    "rm": CommandEntry(
        "quantize.commands.entries", "rm", "Delete a checkpoint that was made by name.", MAKE
    ),
    "config": CommandEntry(
        "glm4q.commands.config", "config", "Show the options that your config file sets.", CHECK
    ),
    "sessions": CommandEntry(
        "glm4q.commands.sessions", "sessions", "List or remove kept conversations.", USE
    ),
    "quantize": CommandEntry(
        "quantize.commands.quantize", "quantize", "Make an INT8 or INT4 checkpoint.", MAKE
    ),
    "export": CommandEntry(
        "quantize.commands.export",
        "export",
        "Write a checkpoint for vLLM or llama.cpp.",
        MAKE,
    ),
    "demo-model": CommandEntry(
        "quantize.commands.demo_model", "demo_model", "Write a small trained model to try.", MAKE
    ),
    "bench": CommandEntry(
        "glm4q.commands.bench", "bench", "Measure speed and memory of a checkpoint here.", CHECK
    ),
    "eval": CommandEntry(
        "quantize.commands.evaluate", "evaluate", "Compare checkpoints by perplexity.", CHECK
    ),
    "verify": CommandEntry(
        "quantize.commands.verify", "verify", "Check that a checkpoint is whole.", CHECK
    ),
}
EXAMPLES = """Examples:

  glm4q calc glm-4-9b-chat --weights int4 --gpu 4060

  glm4q quantize THUDM/glm-4-9b-chat -o glm-int4 --weights int4

  glm4q chat glm-int4

Each command explains itself: glm4q chat --help"""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_MEMORY = (
    "no memory is left, on the device or on the host: another program took it; close that program, "
    "or start anew and let the run be planned for what is left"
)


class Commands(LazyGroup):
    """The commands of the table above."""

    table = COMMANDS


app = typer.Typer(
    name="glm4q",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def glm4q(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Plan, quantize and chat with GLM-4-9B-Chat on the GPU you own."""
    if version:
        typer.echo(f"glm4q {__version__}")


def main(argv: list[str] | None = None) -> int:
    """Run one command. An error that is the input's fault becomes one line on stderr."""
    # Where the program ends, a signal ends it at once: see glm4q/__main__.py.
    with stops_as_before():
        end_at_once_on_stops()  # until a command begins: see QuickCommand
        open_closed_streams()
        tolerate_encodings()
        forget_width_of_nothing()
        return _run(argv)


def _run(argv: list[str] | None) -> int:
    try:
        return app(argv, prog_name="glm4q", standalone_mode=False) or 0
    except Glm4qError as error:
        return _fail(str(error), error)
    except TyperException as error:
        return _fail(error.format_message(), error)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone, and nobody reads an error either
        return 1
    except OSError as error:
        return _fail(_system_words(error), error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _fail(NO_MEMORY, error)


def _system_words(error: OSError) -> str:
    if error.filename:
        return f"{error.filename}: {error.strerror}"
    if error.errno in FULL:  # whoever writes a file names it
        return f"the output cannot be written: {error.strerror}"
    return error.strerror or str(error)


def _fail(message: str, error: BaseException) -> int:
    """Print one line, and return 2: `calc` returns 1 where the model is too big for the card.

    The error's notes follow the message: they say what is kept, and how to go on. The message is
    empty where `glm4q` alone has printed its help.
    """
    if message:
        line = "; ".join([message, *getattr(error, "__notes__", ())])
        with suppress(OSError):  # the terminal may have gone
            print(f"glm4q: {' '.join(line.split())}", file=sys.stderr)
    return 2
