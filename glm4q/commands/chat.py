"""`glm4q chat`: talk to a model, in a terminal or through a pipe."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calculator.errors import OptionError
from calculator.memory.settings import parse_device
from calculator.options import parse_count, parse_size, parse_tokens
from calculator.questions.fit import Wish

DEFAULT_MAX_TOKENS = 1024

if TYPE_CHECKING:
    from glm4q.decode.sampling import SamplingParams
    from glm4q.engine import LLM


def chat(
    model: Annotated[Path, typer.Argument(help="A checkpoint directory: bf16, INT8 or INT4.")],
    prompt: Annotated[
        str | None, typer.Option(help="Ask this one question, print the answer, and leave.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    context: Annotated[
        str | None,
        typer.Option(help="Tokens of context: 8192, 32k. As much as fits if not given."),
    ] = None,
    kv: Annotated[
        str | None,
        typer.Option(help="KV cache: bf16, int8, k8v4 or int4; the finest that fits."),
    ] = None,
    embedding: Annotated[
        str | None, typer.Option(help="Where embedding rows lie: gpu or host.")
    ] = None,
    gpu_layers: Annotated[
        str | None, typer.Option(help="Layers on the GPU, the others on the host: 30, or auto.")
    ] = None,
    reserve: Annotated[
        str | None,
        typer.Option(help="Memory left to other programs: 600M, 1.5 (GiB). 256M; on a CPU 1."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(help="Tokens of an answer at most.")
    ] = DEFAULT_MAX_TOKENS,
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy; the model's own if not given.")
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample among this many tokens.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Drop tokens below this share of the likeliest.")
    ] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1, repeat less.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same answer.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    kernel: Annotated[str, typer.Option(help="auto, or a kernel by name.")] = "auto",
    prefill_chunk: Annotated[
        str, typer.Option(help="Prompt tokens in one forward pass: 512, or auto.")
    ] = "auto",
    draft: Annotated[
        int,
        typer.Option(help="Tokens to guess from the context in each step, such as 4."),
    ] = 0,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hold the plan against what is held, and leave.")
    ] = False,
    receipt: Annotated[
        Path | None, typer.Option(help="With --verify: write what was compared as JSON.")
    ] = None,
) -> int:
    """Chat with a checkpoint. Without a terminal, the question is read from standard input."""
    wish = _wish(context, kv, embedding, gpu_layers, prefill_chunk, draft)
    kept = parse_size(reserve, "reserve") if reserve else None
    if verify:
        from glm4q.commands.receipt import show_receipt

        return show_receipt(_load(model, device, dtype, kernel, wish, kept), receipt)
    question = prompt if prompt is not None or sys.stdin.isatty() else sys.stdin.read()
    if question is not None and not question.strip():
        raise OptionError("the question is empty")
    changes = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "max_tokens": max_tokens,
    }
    params = _params(model, {name: value for name, value in changes.items() if value is not None})
    llm = _load(model, device, dtype, kernel, wish, kept)
    if sys.stderr.isatty():  # a pipe gets the answer and nothing else
        print(llm.fit.sentence(), file=sys.stderr)
    if question is None:
        _converse(llm, system, params)
    else:
        _answer_once(llm, system, params, question)
    return 0


def _wish(
    context: str | None,
    kv: str | None,
    embedding: str | None,
    gpu_layers: str | None,
    prefill_chunk: str,
    draft: int,
) -> Wish:
    return Wish(
        context=parse_tokens(context) if context else None,
        kv=kv,
        embedding=parse_device(embedding, "embedding"),
        prefill_chunk=parse_count(prefill_chunk, "prefill chunk"),
        gpu_layers="auto" if gpu_layers == "auto" else parse_count(gpu_layers, "gpu layers"),
        draft_tokens=draft,
    )


def _params(model: Path, changes: dict[str, float | int]) -> "SamplingParams":
    from dataclasses import replace

    from glm4q.text.generation_config import read_sampling_params

    return replace(read_sampling_params(model), **changes)  # type: ignore[arg-type]


def _load(
    model: Path, device: str, dtype: str, kernel: str, wish: Wish, reserve: int | None
) -> "LLM":
    from rich.console import Console

    from glm4q.engine import LLM

    with Console(file=sys.stderr).status(f"loading {model}"):
        return LLM.load(
            model, device=device, dtype=dtype, kernel=kernel, wish=wish, reserve=reserve
        )


def _converse(llm: "LLM", system: str | None, params: "SamplingParams") -> None:
    import readline  # noqa: F401  # gives input() editing and history

    from rich.console import Console

    from glm4q.terminal.loop import Terminal

    Terminal(llm.chat(system), params, Console()).run()


def _answer_once(llm: "LLM", system: str | None, params: "SamplingParams", question: str) -> None:
    from rich.console import Console

    from glm4q.terminal.markdown import MarkdownStream

    pieces = llm.chat(system).ask(question, params)
    console = Console()
    if console.is_terminal:
        with MarkdownStream(console) as stream:
            for piece in pieces:
                stream.write(piece)
        return
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
