"""Answers that must match a schema do, at a high temperature, with tools, drafts and thinking."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pydantic
import pytest
import torch

from calculator.errors import AnswerCutError, GrammarError, OptionError
from calculator.questions.fit import Wish
from glm4q import LLM, Grammar, SamplingParams
from glm4q.chat.replies import Text, Thinking
from glm4q.chat.reply_grammar import ReplyGrammar
from glm4q.chat.reply_start import ReplyStart
from glm4q.chat.tool_messages import ToolResult
from glm4q.decode.batch import Batch
from glm4q.decode.sampling import Sampler
from glm4q.tools.calls import CallStyle, ToolCall
from tests.glm4q.chat.schemas import SCHEMAS, Schema, closed

WILD = SamplingParams(temperature=1.5)
PERSON = closed({"name": {"type": "string", "maxLength": 5}, "age": {"enum": [1, 2, 3]}})
LINE_START, ROLE_LINE = ReplyStart(False, False), ReplyStart(True, False)
IN_THOUGHT = ReplyStart(True, True)


@pytest.fixture(scope="module")
def llm(chat_checkpoint: Path) -> LLM:
    return LLM.load(chat_checkpoint, device="cpu", wish=Wish(context=4096))


def answer(llm: LLM, schema: Any, params: SamplingParams = WILD) -> str:
    chat = llm.session(schema=schema, params=params)
    text = "".join(chat.ask("Say it."))
    assert chat.last_answer
    assert chat.last_answer.finish_reason == "stop"
    return text


def check(schema: Schema, text: str) -> None:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(json.loads(text))


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_answers_validate_at_a_high_temperature(llm: LLM, number: int) -> None:
    check(SCHEMAS[number], answer(llm, SCHEMAS[number], replace(WILD, seed=number)))


@pytest.mark.demo
def test_the_demo_models_answers_validate(quantized_demo: Callable[[int], Path]) -> None:
    """A schema without an end, as of a number, may be cut: then it matches, or an error says so."""
    llm = LLM.load(quantized_demo(8), device="cpu", wish=Wish(context=1024))
    numbers = range(0, len(SCHEMAS), 12)
    cut = 0
    for number in numbers:
        chat = llm.session(
            schema=SCHEMAS[number], params=replace(WILD, seed=number, max_tokens=200)
        )
        try:
            check(SCHEMAS[number], "".join(chat.ask("Say it.")))
        except AnswerCutError:
            cut += 1
    assert cut < len(numbers) / 2


def test_a_regular_expression_and_a_grammar_are_matched_from_end_to_end(llm: LLM) -> None:
    regex = r"[a-f]{3}/(ja|nein) \d{2}"
    assert re.fullmatch(regex, answer(llm, Grammar.from_regex(regex)))
    grammar = 'start: "<" word ("," word)? ">"\nword: /[xyz]{2}/'
    assert re.fullmatch("<[xyz]{2}(,[xyz]{2})?>", answer(llm, Grammar.from_lark(grammar)))


def test_a_pydantic_model_is_a_schema(llm: LLM) -> None:
    class Weather(pydantic.BaseModel, extra="forbid"):
        rain: bool
        degrees: int = pydantic.Field(ge=-40, le=50)

    Weather.model_validate_json(answer(llm, Weather))


def test_a_limit_that_cuts_an_answer_is_an_error_that_names_it(llm: LLM) -> None:
    with pytest.raises(AnswerCutError, match="max_tokens cut the answer after 9 tokens"):
        answer(llm, PERSON, replace(WILD, max_tokens=9))
    chat = llm.session(schema=Grammar.from_regex("a{200}"), params=WILD)
    with pytest.raises(AnswerCutError, match="the end of the context cut the answer after"):
        list(chat.ask("x" * 4000))


def test_a_whole_answer_at_the_limit_is_no_error(llm: LLM) -> None:
    assert answer(llm, {"const": 1}, replace(WILD, max_tokens=1)) == "1"


def test_control_tokens_end_no_answer_and_come_in_none(llm: LLM) -> None:
    """However likely they are."""
    likely = dict.fromkeys(llm.tokenizer.control_tokens.values(), 100.0)
    check(PERSON, answer(llm, PERSON, replace(WILD, logit_bias=likely, seed=3)))


def test_a_stop_string_and_a_schema_exclude_each_other(llm: LLM) -> None:
    with pytest.raises(OptionError, match="the stop string 'x' would cut"):
        llm.session(schema=PERSON, stop=["x"])


def test_a_call_of_a_tool_matches_its_parameters(llm: LLM) -> None:
    given: list[tuple[str, int]] = []

    def weather(city: str, days: int = 1) -> str:
        """The weather of a city."""
        given.append((city, days))
        return "rain"

    for seed in range(8):
        chat = llm.session(schema=PERSON, tools=[weather], params=replace(WILD, seed=seed))
        events = _first_reply(chat.stream("Say it."))
        if not any(isinstance(event, ToolCall) for event in events):
            check(PERSON, "".join(event.text for event in events if isinstance(event, Text)))
        if given and seed >= 2:
            break
    assert given, "no seed calls the tool"


@pytest.mark.parametrize("choice", ["required", "clock"])
def test_a_call_that_is_required_comes_first_and_then_text_is_free(llm: LLM, choice: str) -> None:
    def weather(city: Literal["Paris", "Rome"]) -> str:
        """The weather of a city."""
        return f"rain in {city}"

    def clock() -> str:
        """The time."""
        return "noon"

    params = replace(WILD, max_tokens=60, logit_bias=dict.fromkeys(llm.stop_token_ids, -100.0))
    chat = llm.session(tools=[weather, clock], tool_choice=choice, params=params)
    for _ in range(2):  # each question is answered so
        call, result, *others = chat.stream("Say it.")
        assert isinstance(call, ToolCall)
        assert choice in ("required", call.name)
        assert isinstance(result, ToolResult)
        assert result.text in ("rain in Paris", "rain in Rome", "noon")
        assert any(isinstance(event, Text) for event in others)
    completion = llm.chat("Say it.", params, tools=[weather, clock], tool_choice=choice)
    assert isinstance(completion.results[0].call, ToolCall)


def test_a_choice_that_no_tool_meets_is_refused(llm: LLM) -> None:
    def clock() -> str:
        """The time."""
        return "noon"

    with pytest.raises(OptionError, match="must be one of auto, required, clock, not weather"):
        llm.session(tools=[clock], tool_choice="weather")
    with pytest.raises(OptionError, match="a call is required, and no tool is offered"):
        llm.session(tool_choice="required")


def _first_reply(events: Any) -> list[Any]:
    """The events up to the first call and its result, or to the end."""
    first: list[Any] = []
    for event in events:
        first.append(event)
        if first and isinstance(first[-1], ToolCall):
            next(events)  # the call runs
            events.close()
            break
    return first


def test_guesses_leave_the_answer_as_it_is_and_take_fewer_steps(
    llm: LLM, chat_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grammar itself forces the names of properties."""
    names = {f"a long name of property {number}": {"enum": [1, 2]} for number in range(4)}
    greedy = SamplingParams(temperature=0)
    steps: list[Batch] = []
    step = Batch.step

    def counted(batch: Batch) -> Any:
        steps.append(batch)
        return step(batch)

    monkeypatch.setattr(Batch, "step", counted)
    unguessed = LLM.load(chat_checkpoint, device="cpu", wish=Wish(4096, draft_tokens=0))
    plain = answer(unguessed, closed(names), greedy)
    alone = len(steps)
    assert answer(llm, closed(names), greedy) == plain
    assert len(steps) - alone < alone / 2


Reply = Callable[[ReplyGrammar, ReplyStart, int, str], list[Any]]


@pytest.fixture
def reply(llm: LLM) -> Reply:
    """reply(grammar, start, seed, begin): a random reply behind a text, as its parser reads it."""

    def make(grammar: ReplyGrammar, start: ReplyStart, seed: int, begin: str = "") -> list[Any]:
        constraint = llm.grammars.constraint(grammar.source(start))
        sampler = Sampler(SamplingParams(seed=seed), torch.device("cpu"), constraint=constraint)
        logits = torch.randn(llm.plan.config.vocab_size)
        thought = 'Hm, {"a": <think>\n</think>\n' if start.thinking else ""
        tokens = llm.tokenizer.encode(thought + begin)
        for token in tokens:
            constraint.accept(token)
        while not constraint.finished and len(tokens) < 300:
            token = sampler(logits.roll(len(tokens))).token
            if token in llm.stop_token_ids:
                break
            tokens.append(token)
        parser = start.parser(grammar.calls, (), grammar.style)
        return parser.feed(llm.tokenizer.decode(tokens)) + parser.finish()

    return make


@pytest.mark.parametrize("start", [LINE_START, ROLE_LINE, IN_THOUGHT], ids=str)
@pytest.mark.parametrize("style", ["metadata", "tool_calls", "python"])
def test_every_reply_that_must_be_a_call_is_read_as_one(
    reply: Reply, style: CallStyle, start: ReplyStart
) -> None:
    tools: list[dict[str, Any]] = [
        {"function": {"name": "weather", "parameters": PERSON}},
        {"function": {"name": "now-1", "parameters": None}},
    ]
    grammar = ReplyGrammar.with_tools(None, tools, style)
    for seed in range(4):
        thoughts, calls = _thoughts_and_others(reply(grammar, start, seed, ""))
        (call,) = calls
        assert isinstance(call, ToolCall)
        if call.name == "weather":
            jsonschema.validate(call.arguments, PERSON)
        else:
            assert (call.name, call.arguments) == ("now-1", {})
        assert bool(thoughts) == start.thinking


BEGINNINGS: dict[CallStyle, tuple[str, ...]] = {
    "metadata": ("\nHi.\nsee\n{", "see\n{\n", '\n{"name": "see", "arguments": {'),
    "tool_calls": ('\nHi, you.\n{"name": "see", "parameters":', "see\n{"),
    "python": ("see\n ```python\ntool_call(", "\n Hi.\nsee\n```python\ntool_call("),
}


@pytest.mark.parametrize("start", [ROLE_LINE, IN_THOUGHT], ids=str)
@pytest.mark.parametrize("style", BEGINNINGS)
def test_what_free_text_begins_as_a_call_ends_as_one_that_matches(
    reply: Reply, style: CallStyle, start: ReplyStart
) -> None:
    tools = [{"function": {"name": name, "parameters": PERSON}} for name in ("see", "other")]
    grammar = ReplyGrammar.free(tools, style, strict=["see"])
    for seed, begin in enumerate(BEGINNINGS[style]):
        _, events = _thoughts_and_others(reply(grammar, start, seed, begin))
        (call,) = [event for event in events if not isinstance(event, Text)]
        assert isinstance(call, ToolCall), call
        jsonschema.validate(call.arguments, PERSON)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("\nsee is a word\nsee\n\nand { so on", None),
        ('\nAn object:\n{"name": "Bob", "arguments": {}}', None),
        ('see\n{"name": "Bo", "age": 1}\nother\n{"any": []}\n done', None),
        ('\nsee\n{"age": 1}', 'age": 1}'),
        ('see\n{"name": "Bo", "age": 4}', "4}"),
        ('\n{"name": "see", "age": 1}', 'ge": 1}'),
        ('\n{"name": "s\\u0065e", "arguments": {}}', "\\u0065e"),
    ],
)
def test_free_text_may_be_anything_but_a_wrong_call(
    llm: LLM, text: str, refused: str | None
) -> None:
    tools = [{"function": {"name": name, "parameters": PERSON}} for name in ("see", "other")]
    grammar = ReplyGrammar.free(tools, "metadata", strict=["see"])
    constraint = llm.grammars.constraint(grammar.source(ROLE_LINE))
    for place, token in enumerate(tokens := llm.tokenizer.encode(text)):
        if constraint.mask(torch.zeros(llm.plan.config.vocab_size))[token] == -torch.inf:
            assert refused is not None, llm.tokenizer.decode(tokens[:place])
            assert llm.tokenizer.decode(tokens[place:]).startswith(refused)
            return
        constraint.accept(token)
    assert refused is None
    assert constraint.complete


def test_one_call_is_the_last_where_calls_are_not_parallel(reply: Reply) -> None:
    tools = [{"function": {"name": "see", "parameters": PERSON}}]
    grammar = ReplyGrammar.free(tools, "metadata", strict=["see"], parallel=False)
    events = reply(grammar, ROLE_LINE, 0, "see\n{")
    assert [type(event) for event in events] == [ToolCall]


@pytest.mark.parametrize("start", [LINE_START, ROLE_LINE, IN_THOUGHT], ids=str)
def test_every_reply_that_must_match_is_read_whole(reply: Reply, start: ReplyStart) -> None:
    grammar = ReplyGrammar("metadata", Grammar.from_json_schema(PERSON))
    for seed in range(3):
        _, texts = _thoughts_and_others(reply(grammar, start, seed, ""))
        check(PERSON, "".join(text.text for text in texts))


def _thoughts_and_others(events: list[Any]) -> tuple[list[Any], list[Any]]:
    """Thinking, and all else."""
    thoughts = [event for event in events if isinstance(event, Thinking)]
    return thoughts, [event for event in events if not isinstance(event, Thinking)]


def test_a_tool_whose_parameters_cannot_be_honoured_is_named() -> None:
    tool = {"function": {"name": "f", "parameters": {"type": "object", "not": {}}}}
    with pytest.raises(GrammarError, match=r"the tool f: .*not supported: not"):
        ReplyGrammar.with_tools(None, [tool], "metadata")
