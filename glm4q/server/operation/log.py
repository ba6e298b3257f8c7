"""The log: events of the server, as lines of JSON where they are asked for.

No event has a text of a message, a key, or an address.
"""

import errno
import json
import logging
import sys
import time
from asyncio import CancelledError
from typing import Literal

from calculator.errors import OptionError
from glm4q.decode.answer import End
from glm4q.server.job import Job

LogFormat = Literal["text", "json"]
LOGGER = logging.getLogger("glm4q.server")


def log_event(event: str, **fields: object) -> None:
    """Write an event; in the log of plain text there are none."""
    LOGGER.info(event, extra={"fields": fields})


def log_format_of(name: str) -> LogFormat:
    """Read the option. Raises OptionError."""
    if name == "json":
        return "json"
    if name == "text":
        return "text"
    raise OptionError(f"log format must be text or json, not {name}")


def set_up_log(log_format: LogFormat) -> None:
    """Let events, and what uvicorn and asyncio say, come to standard error as lines of JSON.

    In plain text only warnings come, and errors with their traceback.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_in_one_line)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("glm4q: %(message)s"))
    LOGGER.setLevel(logging.INFO if log_format == "json" else logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each write to a gone client
    for name in (LOGGER.name, "uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False


def _in_one_line(record: logging.LogRecord) -> bool:
    """Show without a traceback what is no fault of the program: requests that the server cuts off
    as it ends, and connections for which the system has no more files.
    """
    error = record.exc_info[1] if record.exc_info else None
    line = None
    if isinstance(error, CancelledError):
        line = "a request was cut off"
    elif isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        line = f"connections wait: {error.strerror}"
    if line is not None:
        record.msg, record.args, record.exc_info = line, (), None
    return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class AnswerLog:
    """Writes an event for each answer, and for the model's coming and going."""

    def token(self, job: Job, seconds: float | None) -> None:
        """A token alone is no event."""

    def ended(self, job: Job, end: End) -> None:
        now = time.perf_counter()
        first = None if job.first_token is None else job.first_token - job.submitted
        waited = (now if job.begun is None else job.begun) - job.submitted
        log_event(
            "answer",
            request=job.request_id,
            prompt_tokens=len(job.prompt),
            cached_tokens=job.cached_tokens,
            tokens=job.tokens,
            reason=end.reason,
            error=None if end.error is None else type(end.error).__name__,
            queue_seconds=round(waited, 4),
            first_token_seconds=None if first is None else round(first, 4),
            seconds=round(now - job.submitted, 4),
        )

    def model_came(self, seconds: float) -> None:
        log_event("loaded", seconds=round(seconds, 3))

    def model_went(self) -> None:
        log_event("unloaded")
