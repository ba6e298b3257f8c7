"""`glm4q chat`: talk to a model, in a terminal or through a pipe."""

import sys
from pathlib import Path
from typing import Annotated, get_args

import typer

from calculator.checkpoint.stored import StoredModel
from calculator.memory.settings import parse_device
from calculator.options import parse_count, parse_size, parse_tokens
from calculator.questions.fit import Wish
from glm4q.chat.dialects import DIALECTS, find_dialect
from glm4q.commands.options import shared as options
from glm4q.commands.options.kernel import Kernel
from glm4q.commands.process.signals import ending_at_once_on_interrupt
from glm4q.commands.process.streams import read_question
from glm4q.commands.run.conversation import converse
from glm4q.commands.run.receipt import show_receipt
from glm4q.commands.run.tools import DEFAULT_FILES, choose_tools
from glm4q.engine import LLM
from glm4q.kernels.cpu.extension import slow_note
from glm4q.terminal.screen.console import Console
from glm4q.terminal.screen.reply import ReplyView, Think, parse_think
from glm4q.terminal.settings import with_setting
from glm4q.text.generation_config import read_sampling_params

DEFAULT_MAX_TOKENS = 1024
EXAMPLES = (
    "glm4q chat glm-4-9b-chat-int4",
    'glm4q chat glm-4-9b-chat-int4 --kv int8 --context 32k --prompt "What is GPTQ?"',
)
OWN = "the model's own"
TOOLS = "Tools and thinking"


def chat(
    model: Annotated[
        Path, typer.Argument(help="A checkpoint directory: bf16, INT8, INT4 or bitsandbytes.")
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Answer this one question, and leave; a file on standard input is added to it.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="The system prompt.", show_default=False)
    ] = None,
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
    max_tokens: Annotated[
        int,
        typer.Option(help="The most tokens of an answer.", rich_help_panel=options.SAMPLING),
    ] = DEFAULT_MAX_TOKENS,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="0 takes the likeliest token every time.",
            show_default=OWN,
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Keep the smallest set of tokens whose probabilities reach this.",
            show_default=OWN,
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            help="Keep this many of the likeliest tokens.",
            show_default=OWN,
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            help="Drop tokens less likely than this share of the likeliest.",
            show_default=OWN,
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            help="Above 1, tokens that occurred before become less likely.",
            show_default=OWN,
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
    presence_penalty: Annotated[
        float,
        typer.Option(
            help="-2 to 2; above 0, tokens that the answer has become less likely.",
            rich_help_panel=options.SAMPLING,
        ),
    ] = 0.0,
    frequency_penalty: Annotated[
        float,
        typer.Option(
            help="-2 to 2; above 0, the more often the answer has a token, the less likely it is.",
            rich_help_panel=options.SAMPLING,
        ),
    ] = 0.0,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(
            help="ID=NUMBER, -100 to 100: add this to the logit of a token; may be given again.",
            show_default=False,
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="A string that ends an answer, and is not part of it.",
            show_default=False,
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="The same seed gives the same answer.",
            show_default="random",
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
    draft: Annotated[
        int,
        typer.Option(
            help="Tokens to guess from the context in each step, such as 4.",
            rich_help_panel=options.SAMPLING,
        ),
    ] = 0,
    tools: Annotated[
        list[Path] | None,
        typer.Option(
            help="A Python file whose public functions the model may call.",
            show_default=False,
            rich_help_panel=TOOLS,
        ),
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            help="python: let the model run code of its own in a cage without network.",
            show_default=False,
            rich_help_panel=TOOLS,
        ),
    ] = None,
    yes_tools: Annotated[
        list[str] | None,
        typer.Option(
            help="Run this tool without asking; without a terminal no other tool runs.",
            show_default=False,
            rich_help_panel=TOOLS,
        ),
    ] = None,
    files: Annotated[
        Path,
        typer.Option(help="Where files of the python tool are written.", rich_help_panel=TOOLS),
    ] = DEFAULT_FILES,
    think: Annotated[
        str,
        options.choice(
            "What a thinking model thinks, dimmed or not at all", get_args(Think), TOOLS
        ),
    ] = "show",
    dialect: Annotated[
        str | None,
        options.choice(
            "The protocol in place of the checkpoint's chat template", DIALECTS, options.MACHINE
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    kernel: Kernel = "auto",
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Compare the memory plan with what is allocated, and leave.",
            rich_help_panel=options.CHECKING,
        ),
    ] = False,
    receipt: options.Receipt = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="In a conversation, show all figures of each answer.")
    ] = False,
) -> int:
    """Chat with a checkpoint. Without a terminal, the question is read from standard input."""
    wish = _wish(context, kv, embedding, gpu_layers, prefill_chunk, draft)
    kept = parse_size(reserve, "reserve") if reserve else None
    if verify:
        return show_receipt(_load(model, device, dtype, kernel, wish, kept), receipt)
    StoredModel.open(model)  # a wrong directory is refused before a question is read
    question = read_question(prompt)
    changes = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "seed": seed,
        "max_tokens": max_tokens,
    }
    params = read_sampling_params(
        model, {name: value for name, value in changes.items() if value is not None}
    )
    if logit_bias:
        params = with_setting(params, "logit_bias", " ".join(logit_bias))
    shown = parse_think(think)
    if dialect is not None:
        find_dialect(dialect)
    with choose_tools(tools or (), tool or (), yes_tools or (), files) as chosen:
        llm = _load(model, device, dtype, kernel, wish, kept)
        session = llm.chat(
            system,
            params,
            tools=chosen.tools,
            consent=chosen.consent,
            dialect=dialect,
            stop=stop or (),
        )
        _introduce(llm)
        if question is None:
            converse(llm, session, params, think=shown, verbose=verbose)
        else:
            raw = not sys.stdout.isatty()
            view = ReplyView(Console(), Console(file=sys.stderr), raw=raw, think=shown)
            view.show(session.stream(question))
    return 0


def _introduce(llm: LLM) -> None:
    """Say what the user should know before the first answer."""
    if note := slow_note({tensor.device for tensor in llm.model.state_dict().values()}):
        print(f"glm4q: {note}", file=sys.stderr)
    if sys.stderr.isatty():  # a pipe gets the answer and nothing else
        print(llm.fit.sentence(), file=sys.stderr)


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


def _load(
    model: Path, device: str, dtype: str, kernel: str, wish: Wish, reserve: int | None
) -> LLM:
    with ending_at_once_on_interrupt(), Console(file=sys.stderr).status(f"loading {model}"):
        return LLM.load(
            model, device=device, dtype=dtype, kernel=kernel, wish=wish, reserve=reserve
        )
