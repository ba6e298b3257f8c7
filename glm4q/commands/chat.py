"""`glm4q chat`: talk to a model, in a terminal or through a pipe."""

import sys
from dataclasses import replace
from functools import partial
from typing import Any

from calculator.errors import OptionError
from glm4q.chat.dialects import find_dialect
from glm4q.chat.session import ChatSession
from glm4q.commands.options import chat as option
from glm4q.commands.options import compute, keeping, memory, output, sampling, store
from glm4q.commands.process.streams import read_question
from glm4q.commands.run.answer_json import answer_as_json
from glm4q.commands.run.conversation import converse
from glm4q.commands.run.grammars import read_grammar
from glm4q.commands.run.keeping import PrefixPlace, begin_session, make_keeper
from glm4q.commands.run.load import load, make_wish, parse_reserve
from glm4q.commands.run.named_model import ModelRequest, find_checkpoint
from glm4q.commands.run.receipt import show_receipt
from glm4q.commands.run.tools import DEFAULT_FILES, choose_tools
from glm4q.decode.sampling import SamplingParams
from glm4q.terminal.screen.console import Console
from glm4q.terminal.screen.reply import ReplyView, Think, parse_think
from glm4q.terminal.settings import with_setting
from glm4q.text.generation_config import read_sampling_params

DEFAULT_MAX_TOKENS = 1024
EXAMPLES = (
    "glm4q chat glm-4-9b-chat-int4",
    'glm4q chat glm-4-9b-chat-int4 --kv int8 --context 32k --prompt "What is GPTQ?"',
)


def chat(
    model: store.Model,
    prompt: option.Prompt = None,
    system: option.System = None,
    context: memory.Context = None,
    kv: memory.KV = None,
    embedding: memory.Embedding = None,
    gpu_layers: memory.GpuLayers = None,
    reserve: memory.Reserve = None,
    prefill_chunk: memory.PrefillChunk = "auto",
    max_tokens: sampling.MaxTokens = DEFAULT_MAX_TOKENS,
    temperature: sampling.Temperature = None,
    top_p: sampling.TopP = None,
    top_k: sampling.TopK = None,
    min_p: sampling.MinP = None,
    repetition_penalty: sampling.RepetitionPenalty = None,
    presence_penalty: sampling.PresencePenalty = 0.0,
    frequency_penalty: sampling.FrequencyPenalty = 0.0,
    logit_bias: sampling.LogitBias = None,
    stop: sampling.Stop = None,
    loop_guard: sampling.LoopGuard = True,
    seed: sampling.Seed = None,
    draft: sampling.Draft = 0,
    json_schema: option.JsonSchema = None,
    regex: option.Regex = None,
    grammar: option.GrammarFile = None,
    tools: option.Tools = None,
    tool: option.BuiltInTool = None,
    yes_tools: option.YesTools = None,
    files: option.Files = DEFAULT_FILES,
    session: keeping.Session = None,
    prefix_store: keeping.PrefixStore = None,
    prefix_store_size: keeping.PrefixStoreSize = keeping.DEFAULT_SIZE,
    think: option.ThinkChoice = "show",
    dialect: option.Dialect = None,
    store_directory: store.Directory = None,
    weights: store.Weights = None,
    group_size: store.GroupSize = None,
    lm_head: store.LmHead = None,
    gpu: store.Gpu = None,
    vram: store.Vram = None,
    quick: store.Quick = False,
    keep_source: store.KeepSource = False,
    yes: store.Yes = False,
    device: compute.Device = "auto",
    dtype: compute.Dtype = "auto",
    kernel: compute.Kernel = "auto",
    as_json: option.AsJson = False,
    verify: output.Verify = False,
    receipt: output.Receipt = None,
    verbose: option.Verbose = False,
) -> int:
    """Chat with a model. Where only its name is given, its checkpoint is made first, once.

    Without a terminal, the question is read from standard input.
    """
    wish = make_wish(context, kv, embedding, gpu_layers, prefill_chunk, draft_tokens=draft)
    kept = parse_reserve(reserve)
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
        "loop_guard": loop_guard,
    }
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if logit_bias:
        biased = with_setting(SamplingParams(), "logit_bias", " ".join(logit_bias))
        given["logit_bias"] = biased.logit_bias
    # A wrong option is refused before a checkpoint is made, which takes hours.
    replace(SamplingParams(), **given)
    schema = read_grammar(json_schema, regex, grammar, stop or ())
    place = PrefixPlace.parse(prefix_store, prefix_store_size)
    shown = parse_think(think)
    if dialect is not None:
        find_dialect(dialect)
    path = find_checkpoint(
        ModelRequest(
            model,
            store_directory,
            weights,
            group_size,
            lm_head,
            gpu,
            vram,
            quick=quick,
            keep_source=keep_source,
            yes=yes,
            wish=wish,
            reserve=kept,
            device=device,
            dtype=dtype,
            kernel=kernel,
        )
    )
    loading = partial(load, path, wish, kept, device=device, dtype=dtype, kernel=kernel)
    if verify:
        return show_receipt(loading(), receipt)
    question = read_question(prompt)
    if as_json and question is None:
        raise OptionError("--json answers one question: give it with --prompt or standard input")
    params = read_sampling_params(path, given)
    with choose_tools(tools or (), tool or (), yes_tools or (), files) as chosen:
        llm = loading()
        conversation = llm.chat(
            system,
            params,
            tools=chosen.tools,
            consent=chosen.consent,
            dialect=dialect,
            stop=stop or (),
            schema=schema,
        )
        if sys.stderr.isatty():  # a pipe gets the answer and nothing else
            print(llm.fit.sentence(), file=sys.stderr)
        keeper = make_keeper(llm, conversation, place, _note)
        if session is not None:
            begin_session(keeper, conversation, session, system, _note)
        if question is None:
            converse(llm, keeper, conversation, params, think=shown, verbose=verbose)
        else:
            if as_json:
                events = conversation.stream(question)
                print(answer_as_json(conversation, events, str(llm.directory)))
            else:
                _answer(conversation, question, shown)
            if problem := keeper.save_if_always():
                _note(problem)
    return 0


def _note(line: str) -> None:
    print(f"glm4q: {line}", file=sys.stderr)


def _answer(session: ChatSession, question: str, think: Think) -> None:
    """Answer one question. A pipe gets the text as it is."""
    raw = not sys.stdout.isatty()
    view = ReplyView(Console(), Console(file=sys.stderr), raw=raw, think=think)
    view.show(session.stream(question))
    if session.last_answer is not None and session.last_answer.finish_reason == "repetition":
        _note(
            "the answer repeated itself without end, and was stopped: --repetition-penalty 1.1 or "
            "a higher --temperature helps; --no-loop-guard lets it go on"
        )
