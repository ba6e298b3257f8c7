"""`glm4q chat`: talk to a model, in a terminal or through a pipe."""

import sys
from functools import partial

from calculator.errors import OptionError
from glm4q.chat.dialects import find_dialect
from glm4q.chat.session import ChatSession
from glm4q.chat.template import refuse_tools
from glm4q.commands.options import chat as option
from glm4q.commands.options import compute, keeping, memory, output, sampling, store
from glm4q.commands.process.streams import read_question
from glm4q.commands.run.answer_json import answer_as_json
from glm4q.commands.run.base_model import base_model_note
from glm4q.commands.run.conversation import converse
from glm4q.commands.run.grammars import read_grammar
from glm4q.commands.run.keeping import (
    PrefixPlace,
    Running,
    begin_session,
    make_keeper,
    refuse_session,
)
from glm4q.commands.run.load import load, make_wish, parse_reserve
from glm4q.commands.run.receipt import show_receipt
from glm4q.commands.run.sampling import given_settings
from glm4q.commands.run.tools import DEFAULT_FILES, ToolOptions, choose_tools
from glm4q.planning.named_model import ModelRequest, find_checkpoint
from glm4q.terminal.screen.console import Console
from glm4q.terminal.screen.reply import ReplyView, Think, parse_think
from glm4q.text.generation_config import read_sampling_params
from glm4q.tools.functions import AUTO

EXAMPLES = (
    "glm4q chat glm-4-9b-chat-int4",
    'glm4q chat glm-4-9b-chat-int4 --kv int8 --context 32k --prompt "What is GPTQ?"',
)


def chat(
    model: store.Model,
    *,
    prompt: option.Prompt = None,
    system: option.System = None,
    run_memory: memory.Memory,
    sampled: sampling.Sampling,
    draft: sampling.Draft = None,
    json_schema: option.JsonSchema = None,
    regex: option.Regex = None,
    grammar: option.GrammarFile = None,
    tools: option.Tools = None,
    tool: option.BuiltInTool = None,
    mcp: option.Mcp = None,
    search_url: option.SearchUrl = None,
    yes_tools: option.YesTools = None,
    tool_choice: option.ToolChoice = AUTO,
    files: option.Files = DEFAULT_FILES,
    session: keeping.Session = None,
    prefix_store: keeping.PrefixStore = None,
    prefix_store_size: keeping.PrefixStoreSize = keeping.DEFAULT_SIZE,
    think: option.ThinkChoice = "show",
    dialect: option.Dialect = None,
    making: store.Making,
    computing: compute.Compute,
    as_json: option.AsJson = False,
    logprobs: option.Logprobs = None,
    verify: output.Verify = False,
    receipt: output.Receipt = None,
    verbose: option.Verbose = False,
) -> int:
    """Chat with a model. Where only its name is given, its checkpoint is made first, once.

    Without a terminal, the question is read from standard input.
    """
    # A wrong option is refused before a checkpoint is made, which takes hours.
    wish = make_wish(run_memory, draft_tokens=draft)
    kept = parse_reserve(run_memory.reserve)
    given, stop = given_settings(sampled, logprobs), sampled.stop or ()
    schema = read_grammar(json_schema, regex, grammar, stop)
    place = PrefixPlace.parse(prefix_store, prefix_store_size)
    shown = parse_think(think)
    if dialect is not None:
        find_dialect(dialect)
    if session is not None:
        refuse_session(session)
    if receipt is not None and not verify:
        raise OptionError("--receipt goes with --verify, whose comparison it keeps")
    offered = ToolOptions(
        tools or (),
        tool or (),
        mcp or (),
        search_url,
        allowed=yes_tools or (),
        choice=tool_choice,
        written=files,
    )
    request = ModelRequest(model, **vars(making), **vars(computing), wish=wish, reserve=kept)
    path = find_checkpoint(request)
    loading = partial(load, path, wish, kept, computing)
    if verify:
        return show_receipt(loading(), receipt)
    question = read_question(prompt)
    if as_json and question is None:
        raise OptionError("--json answers one question: give it with --prompt or standard input")
    if logprobs is not None and question is not None and not as_json:
        raise OptionError("--logprobs needs --json, or a conversation, where /tokens shows them")
    params = read_sampling_params(path, given)
    with choose_tools(offered) as chosen:
        if chosen.tools and dialect is None:
            refuse_tools(path)
        llm = loading()
        conversation = llm.session(
            system,
            params,
            tools=chosen.tools,
            consent=chosen.consent,
            tool_choice=tool_choice,
            dialect=dialect,
            stop=stop,
            schema=schema,
        )
        if sys.stderr.isatty():  # a pipe gets the answer and nothing else
            Console(file=sys.stderr).print(llm.fit.sentence(), markup=False, highlight=False)
        if note := base_model_note(llm):
            _note(note)
        running = Running(llm)
        keeper = make_keeper(running, conversation, place, _note)
        if session is not None:
            begin_session(keeper, conversation, session, system, _note)
        if question is None:
            converse(running, keeper, conversation, params, think=shown, verbose=verbose)
            return 0
        if as_json:
            events = conversation.stream(question)
            print(answer_as_json(llm, conversation, events))
        else:
            _answer(conversation, question, shown)
        # Raises where it cannot be kept: a script that asks its next question has to know.
        if session is not None and (problem := keeper.save(session)):
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
