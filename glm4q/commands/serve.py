"""`glm4q serve`: answer the clients of OpenAI's and Anthropic's APIs with a model."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from calculator.cards.card import Card, find_machine_card
from calculator.errors import OptionError, TokenizerError
from calculator.extras import require_packages
from calculator.options import one_of
from glm4q.chat.dialects import find_dialect
from glm4q.chat.template import ChatTemplate
from glm4q.commands.options import compute, keeping, memory, sampling, store
from glm4q.commands.options import serve as option
from glm4q.commands.options.chat import Dialect
from glm4q.commands.run.base_model import base_model_note
from glm4q.commands.run.keeping import PrefixPlace
from glm4q.commands.run.load import load, make_wish, parse_reserve, print_note, reloader
from glm4q.commands.run.vllm import print_vllm_command
from glm4q.decode.pace.pause_bound import PauseBound
from glm4q.engine import LLM
from glm4q.planning.named_model import ModelRequest, find_checkpoint
from glm4q.text.generation_config import read_sampling_params

if TYPE_CHECKING:
    from glm4q.server.served import ServedModel

EXAMPLES = (
    "glm4q serve glm-4-9b-chat-int4",
    "glm4q serve glm-4-9b-chat-int4 --parallel 4 --context 8k --port 9000",
    "glm4q serve glm-4-9b-chat-int4 --engine vllm --print --gpu 3090 --parallel 50 --context 8k",
)
MOST_MINUTES = 525_600
MOST_SECONDS = 60 * MOST_MINUTES


def serve(
    model: store.Model,
    *,
    host: option.Host = "127.0.0.1",
    port: option.Port = 8080,
    api_key_file: option.ApiKeyFile = None,
    cors_origin: option.CorsOrigin = None,
    name: option.Name = None,
    queue: option.Queue = 32,
    parallel: memory.Parallel = 1,
    run_memory: memory.Memory,
    making: store.Making,
    computing: compute.Compute,
    loop_guard: sampling.LoopGuard = True,
    prefix_store: keeping.ServedPrefixStore = None,
    prefix_store_size: keeping.PrefixStoreSize = keeping.DEFAULT_SIZE,
    dialect: Dialect = None,
    max_pause: option.MaxPause = None,
    time_limit: option.TimeLimit = 3600,
    idle_unload: option.IdleUnload = None,
    log_format: option.LogFormat = "text",
    engine: option.Engine = "glm4q",
    print_command: option.Print = False,
) -> int:
    """Serve a model by the APIs of OpenAI (chat, completions, responses) and Anthropic."""
    batch = _at_least(1, parallel, "parallel")
    if _prints(engine, print_command):
        return print_vllm_command(
            Path(model),
            gpu=making.gpu,
            users=batch,
            context=run_memory.context,
            name=name,
            host=host,
            port=port,
        )
    require_packages("serve", "prometheus_client", "starlette", "sse_starlette", "uvicorn")
    # The server's packages come with an extra: glm4q --help and the other commands need none.
    from glm4q.server.app import make_app
    from glm4q.server.decoding import BatchDecoder
    from glm4q.server.listen import address, listen, rules_for, run
    from glm4q.server.operation.log import AnswerLog, log_event, log_format_of, set_up_log
    from glm4q.server.operation.metrics import Metrics
    from glm4q.server.service import Service
    from glm4q.server.worker import Worker

    set_up_log(log_format_of(log_format))
    if dialect is not None:
        find_dialect(dialect)
    idle_seconds = None if idle_unload is None else _minutes(idle_unload, "idle unload")
    pause = PauseBound(None if max_pause is None else _milliseconds(max_pause, "max pause"))
    _above_zero(time_limit, MOST_SECONDS, "time limit", "seconds")
    wish = make_wish(run_memory, batch=batch)
    kept = parse_reserve(run_memory.reserve)
    _at_least(0, queue, "queue")
    prefixes = PrefixPlace.parse(prefix_store, prefix_store_size)

    def note(text: str) -> None:
        log_event("note", text=text) if log_format == "json" else print_note(text)

    rules = rules_for(host, api_key_file, cors_origin.split(",") if cors_origin else ())
    with listen(host, port) as listener:  # a used port is refused before anything is made
        request = ModelRequest(model, **vars(making), **vars(computing), wish=wish, reserve=kept)
        llm = load(find_checkpoint(request), wish, kept, computing, note)
        if base := base_model_note(llm):
            note(base)
        if llm.machine.device.type == "cuda":
            note("compiling and recording what the GPU runs, so that no answer waits for it")
            llm.record_all()
        if prefix_store is not None:
            prefixes.open(llm, note)
        served, metrics = _describe(llm, name, dialect, loop_guard, note), Metrics()
        worker = Worker(
            BatchDecoder(llm.rows, reloader(llm), note, pause=pause),
            queue=queue,
            watches=(metrics, AnswerLog()),
            idle_seconds=idle_seconds,
            time_limit=time_limit,
        )
        app = make_app(Service(served, worker), rules, metrics, _card(llm))
        note(llm.fit.sentence())
        note(f"a page for a browser at {address(listener)}/")
        note(f"serving at {address(listener)}/v1")
        del llm  # the worker alone keeps the model, so that it can be given back
        run(app, listener, worker)
    return 0


def _prints(engine: str, print_command: bool) -> bool:
    """Whether the command of another engine is asked for. Raises OptionError."""
    if one_of("engine", engine, option.ENGINES) == "vllm":
        if not print_command:
            raise OptionError("engine vllm is not run from here: --print prints its command")
        return True
    if print_command:
        raise OptionError("--print is for --engine vllm")
    return False


def _card(llm: LLM) -> Card | None:
    """Name the card of the run, with the bytes that the run may use; None without one."""
    if llm.machine.compute == "host":
        return None
    card = find_machine_card()
    return card and replace(card, usable_bytes=llm.fit.usable_bytes)


def _describe(
    llm: LLM,
    name: str | None,
    dialect: str | None,
    loop_guard: bool,
    note: Callable[[str], None],
) -> "ServedModel":
    """Collect what the server tells about the model, and what it renders messages with."""
    from glm4q.server.served import ServedModel

    return ServedModel(
        name=name or llm.directory.resolve().name,
        directory=str(llm.directory),
        tokenizer=llm.tokenizer,
        grammars=llm.grammars,
        template=_template(llm, dialect, note),
        params=replace(read_sampling_params(llm.directory), loop_guard=loop_guard),
        stop_token_ids=llm.stop_token_ids,
        context=llm.rows.room,
        vocab_size=llm.plan.config.vocab_size,
        question=llm.fit.question,
        created=int(time.time()),
    )


def _template(llm: LLM, dialect: str | None, note: Callable[[str], None]) -> ChatTemplate | None:
    """The chat template; None for a model that only completes text."""
    control_tokens = llm.tokenizer.control_tokens
    try:
        return ChatTemplate.from_directory(llm.directory, control_tokens, dialect)
    except TokenizerError as error:
        note(f"{error}; only /v1/completions will answer")
        return None


def _at_least(least: int, count: int, name: str) -> int:
    if count < least:
        raise OptionError(f"{name} must be at least {least}, not {count}")
    return count


def _minutes(minutes: float, name: str) -> float:
    """Read minutes as seconds. Raises OptionError."""
    _above_zero(minutes, MOST_MINUTES, name, "minutes")
    return 60 * minutes


def _milliseconds(milliseconds: float, name: str) -> float:
    """Read milliseconds as seconds. Raises OptionError."""
    _above_zero(milliseconds, 1000 * MOST_SECONDS, name, "milliseconds")
    return milliseconds / 1000


def _above_zero(number: float, most: int, name: str, unit: str) -> None:
    if not 0 < number <= most:
        raise OptionError(f"{name} must be above 0 and at most {most} {unit}, not {number:g}")
