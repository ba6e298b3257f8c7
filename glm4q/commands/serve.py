"""`glm4q serve`: answer the clients of OpenAI's API with a checkpoint."""

import sys
import time
from typing import TYPE_CHECKING

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError, TokenizerError
from calculator.extras import require_packages
from glm4q.chat.template import ChatTemplate
from glm4q.commands.options import compute, memory
from glm4q.commands.options import serve as option
from glm4q.commands.run.load import load, make_wish, parse_reserve
from glm4q.engine import LLM
from glm4q.text.generation_config import read_sampling_params

if TYPE_CHECKING:
    from glm4q.server.served import ServedModel

EXAMPLES = (
    "glm4q serve glm-4-9b-chat-int4",
    "glm4q serve glm-4-9b-chat-int4 --parallel 4 --context 8k --port 9000",
)


def serve(
    model: memory.Checkpoint,
    host: option.Host = "127.0.0.1",
    port: option.Port = 8080,
    api_key_file: option.ApiKeyFile = None,
    cors_origin: option.CorsOrigin = None,
    name: option.Name = None,
    queue: option.Queue = 32,
    parallel: memory.Parallel = 1,
    context: memory.Context = None,
    kv: memory.KV = None,
    embedding: memory.Embedding = None,
    gpu_layers: memory.GpuLayers = None,
    reserve: memory.Reserve = None,
    prefill_chunk: memory.PrefillChunk = "auto",
    device: compute.Device = "auto",
    dtype: compute.Dtype = "auto",
    kernel: compute.Kernel = "auto",
) -> int:
    """Serve a checkpoint by OpenAI's API: /v1/chat/completions, /v1/completions, /v1/models."""
    require_packages("serve", "starlette", "sse_starlette", "uvicorn")
    # The server's packages come with an extra: glm4q --help and the other commands need none.
    from glm4q.server.app import make_app
    from glm4q.server.decoding import BatchDecoder
    from glm4q.server.listen import address, listen, rules_for, run
    from glm4q.server.service import Service
    from glm4q.server.worker import Worker

    batch = _at_least(1, parallel, "parallel")
    wish = make_wish(context, kv, embedding, gpu_layers, prefill_chunk, batch=batch)
    kept = parse_reserve(reserve)
    _at_least(0, queue, "queue")
    rules = rules_for(host, api_key_file, cors_origin.split(",") if cors_origin else ())
    StoredModel.open(model)  # a wrong directory, and a used port, are refused before all else
    with listen(host, port) as listener:
        llm = load(model, wish, kept, device=device, dtype=dtype, kernel=kernel)
        worker = Worker(BatchDecoder(llm.batch), queue=queue)
        app = make_app(Service(_describe(llm, name), worker), rules)
        print(llm.fit.sentence(), file=sys.stderr)
        print(f"glm4q: serving at {address(listener)}/v1", file=sys.stderr, flush=True)
        run(app, listener, worker)
    return 0


def _describe(llm: LLM, name: str | None) -> "ServedModel":
    """Collect what the server tells about the model, and what it renders messages with."""
    from glm4q.server.served import ServedModel

    return ServedModel(
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
