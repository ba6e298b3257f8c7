"""`glm4q serve`: answer the clients of OpenAI's API with a checkpoint."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError, TokenizerError
from calculator.extras import require_packages
from calculator.memory.settings import parse_device
from calculator.options import parse_count, parse_size, parse_tokens
from calculator.questions.fit import Wish
from glm4q.chat.template import ChatTemplate
from glm4q.commands.options import shared as options
from glm4q.commands.options.kernel import Kernel
from glm4q.commands.process.signals import ending_at_once_on_interrupt
from glm4q.engine import LLM
from glm4q.kernels.cpu.extension import slow_note
from glm4q.terminal.screen.console import Console
from glm4q.text.generation_config import read_sampling_params

EXAMPLES = (
    "glm4q serve glm-4-9b-chat-int4",
    "glm4q serve glm-4-9b-chat-int4 --parallel 4 --context 8k --port 9000",
)
NETWORK = "Network"


def serve(
    model: Annotated[
        Path, typer.Argument(help="A checkpoint directory: bf16, INT8, INT4 or bitsandbytes.")
    ],
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen on. Other machines reach it only with an API key.",
            rich_help_panel=NETWORK,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port; 0 takes a free one.", rich_help_panel=NETWORK)
    ] = 8080,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the key that clients must send.",
            show_default=False,
            rich_help_panel=NETWORK,
        ),
    ] = None,
    cors_origin: Annotated[
        str | None,
        typer.Option(
            help="Sites whose pages may ask, such as http://localhost:3000; commas between them.",
            show_default=False,
            rich_help_panel=NETWORK,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="The model's name for clients.",
            show_default="the directory's",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    queue: Annotated[
        int,
        typer.Option(help="Answers that may wait for a free row.", rich_help_panel=NETWORK),
    ] = 32,
    parallel: Annotated[
        int,
        typer.Option(
            help="Answers at once, each with the context.", rich_help_panel=options.MEMORY
        ),
    ] = 1,
    context: Annotated[
        str | None, options.tokens("Tokens of context", options.MEMORY, default="what fits")
    ] = None,
    kv: Annotated[str | None, options.kv("the finest that fits")] = None,
    embedding: Annotated[str | None, options.embedding("the GPU where it fits")] = None,
    gpu_layers: Annotated[
        str | None,
        options.gpu_layers("Layers that the GPU runs, or auto; the others run on the host."),
    ] = None,
    reserve: Annotated[
        str | None,
        options.size("Memory left to other programs", default="256M of a GPU, 1 of the host"),
    ] = None,
    prefill_chunk: Annotated[
        str,
        typer.Option(
            help="Prompt tokens in one forward pass: 512, or auto.", rich_help_panel=options.MEMORY
        ),
    ] = "auto",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    kernel: Kernel = "auto",
) -> int:
    """Serve a checkpoint by OpenAI's API: /v1/chat/completions, /v1/completions, /v1/models."""
    require_packages("serve", "starlette", "sse_starlette", "uvicorn")
    # The server's packages come with an extra: glm4q --help and the other commands need none.
    from glm4q.server.app import make_app
    from glm4q.server.decoding import BatchDecoder
    from glm4q.server.listen import address, listen, rules_for, run
    from glm4q.server.served import ServedModel
    from glm4q.server.service import Service
    from glm4q.server.worker import Worker

    wish = Wish(
        context=parse_tokens(context) if context else None,
        kv=kv,
        embedding=parse_device(embedding, "embedding"),
        prefill_chunk=parse_count(prefill_chunk, "prefill chunk"),
        gpu_layers="auto" if gpu_layers == "auto" else parse_count(gpu_layers, "gpu layers"),
        batch=_at_least(1, parallel, "parallel"),
    )
    kept = parse_size(reserve, "reserve") if reserve else None
    _at_least(0, queue, "queue")
    rules = rules_for(host, api_key_file, cors_origin.split(",") if cors_origin else ())
    StoredModel.open(model)  # a wrong directory, and a used port, are refused before all else
    with listen(host, port) as listener:
        with ending_at_once_on_interrupt(), Console(file=sys.stderr).status(f"loading {model}"):
            llm = LLM.load(
                model, device=device, dtype=dtype, kernel=kernel, wish=wish, reserve=kept
            )
        if note := slow_note({tensor.device for tensor in llm.model.state_dict().values()}):
            print(f"glm4q: {note}", file=sys.stderr)
        worker = Worker(BatchDecoder(llm.batch), queue=queue)
        served = ServedModel(
            name=name or llm.directory.resolve().name,
            directory=str(llm.directory),
            tokenizer=llm.tokenizer,
            template=_template(llm),
            params=read_sampling_params(llm.directory),
            stop_token_ids=llm.stop_token_ids,
            context=llm.batch.room,
            vocab_size=llm.plan.config.vocab_size,
            question=llm.fit.question,
            created=int(time.time()),
        )
        app = make_app(Service(served, worker), rules)
        print(llm.fit.sentence(), file=sys.stderr)
        print(f"glm4q: serving at {address(listener)}/v1", file=sys.stderr, flush=True)
        run(app, listener, worker)
    return 0


def _template(llm: LLM) -> ChatTemplate | None:
    """The chat template; None for a model that only completes text."""
    try:
        return ChatTemplate.from_directory(llm.directory, llm.tokenizer.control_tokens)
    except TokenizerError as error:
        print(f"glm4q: {error}; only /v1/completions will answer", file=sys.stderr)
        return None


def _at_least(least: int, count: int, name: str) -> int:
    if count < least:
        raise OptionError(f"{name} must be at least {least}, not {count}")
    return count
