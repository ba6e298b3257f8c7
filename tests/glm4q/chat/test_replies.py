"""Replies in every dialect, cut at every place: the same answer, thoughts and calls."""

from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm4q.chat.replies import ReplyEvent, ReplyParser, Text, Thinking
from glm4q.tools.calls import BadCall, ToolCall

TOOLS = ("get_weather", "get_weather_map", "python")
PARIS = ToolCall("get_weather", {"city": "Paris"})


def merged(events: list[ReplyEvent]) -> list[ReplyEvent]:
    """Neighbouring pieces of one kind as one."""
    result: list[ReplyEvent] = []
    for kind, group in groupby(events, key=type):
        if kind is Text or kind is Thinking:
            pieces = [event.text for event in group if isinstance(event, Text | Thinking)]
            result.append(kind("".join(pieces)))
        else:
            result.extend(group)
    return result


def parse(pieces: list[str], *, whole: bool = True, **options: Any) -> list[ReplyEvent]:
    parser = ReplyParser(**options)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merged(events + parser.finish(whole=whole))


THINKS: dict[str, Any] = {"thinking": True, "role_line": False}
REPLIES: list[tuple[str, dict[str, Any], list[ReplyEvent]]] = [
    ("\nHello.\nBye.\n", {}, [Text("Hello.\nBye.\n")]),
    ("Hello.", {}, [Text("Hello.")]),
    ("\nget_weather\n{}", {"tools": ()}, [Text("get_weather\n{}")]),
    ('get_weather\n{"city": "Paris"}', {}, [PARIS]),
    ('get_weather \n {"city": "Paris"}\n', {}, [PARIS]),
    ('\nI look.\nget_weather\n{"city": "Paris"}', {}, [Text("I look.\n"), PARIS]),
    ('get_weather\n{"city": "Paris"}\nget_weather\n{"city": "Paris"}', {}, [PARIS, PARIS]),
    ('get_weather\n{"city": "Paris"}\nDone.', {}, [PARIS, Text("Done.")]),
    ('{"name": "get_weather", "arguments": {"city": "Paris"}}', {}, [PARIS]),
    ('{ "name" : "get_weather", "parameters": "{\\"city\\": \\"Paris\\"}"}', {}, [PARIS]),
    ('\n{"name": "Ann", "age": 3}', {}, [Text('{"name": "Ann", "age": 3}')]),
    ('\n{"a": 1}', {}, [Text('{"a": 1}')]),
    ("\nget_weather\nis a tool.", {}, [Text("get_weather\nis a tool.")]),
    ("\nget_weather", {}, [Text("get_weather")]),
    ("\nWeather\n{x}", {}, [Text("Weather\n{x}")]),
    (
        'get_rain\n{"a": 1}',
        {},
        [
            BadCall(
                'get_rain\n{"a": 1}',
                "there is no tool 'get_rain'; the tools are get_weather, get_weather_map, python",
            )
        ],
    ),
    (
        'python\n{"code": "a\nb {\\"}\\\\"}',
        {},
        [ToolCall("python", {"code": 'a\nb {"}\\'})],
    ),
    (
        'get_weather\n{"city": "Pa',
        {},
        [
            BadCall(
                'get_weather\n{"city": "Pa',
                "the call is not complete: the reply ended inside its JSON",
            )
        ],
    ),
    (
        'get_weather\n{"city": NaN}',
        {},
        [
            BadCall(
                'get_weather\n{"city": NaN}',
                "the arguments of get_weather are not valid JSON: NaN is not a JSON number",
            )
        ],
    ),
    ("Hm.\n</think>\n\nYes.", THINKS, [Thinking("Hm.\n"), Text("Yes.")]),
    ("<think>Hm.</think>Yes.", {}, [Thinking("Hm."), Text("Yes.")]),
    ("\n<think>Hm.</think>Yes.", {}, [Thinking("Hm."), Text("Yes.")]),
    ("\nA <think> tag", {}, [Text("A <think> tag")]),
    ("Yes, 4.", THINKS, [Thinking("Yes, 4."), Text("Yes, 4.")]),
    (
        'Look.</think>\nget_weather\n{"city": "Paris"}',
        THINKS,
        [Thinking("Look."), PARIS],
    ),
    ("\none STOP two", {"stop": ["STOP"]}, [Text("one ")]),
    ("\none STO", {"stop": ["STOP", "one!"]}, [Text("one STO")]),
    ("\naab", {"stop": ["ab"]}, [Text("a")]),
]


@pytest.mark.parametrize(("reply", "options", "expected"), REPLIES)
def test_a_reply_is_the_same_wherever_it_is_cut(
    reply: str, options: dict[str, Any], expected: list[ReplyEvent]
) -> None:
    options = {"tools": TOOLS, **options}
    assert parse([reply], **options) == expected
    assert parse([*reply], **options) == expected
    for place in range(1, len(reply)):
        assert parse([reply[:place], reply[place:]], **options) == expected


@given(
    st.text(alphabet='\n {}":abgethr_w<>/k', max_size=60),
    st.lists(st.integers(0, 60), max_size=4),
    st.booleans(),
)
def test_any_text_is_the_same_wherever_it_is_cut(
    reply: str, cuts: list[int], thinking: bool
) -> None:
    places = sorted({0, len(reply), *(cut for cut in cuts if cut < len(reply))})
    pieces = [reply[a:b] for a, b in pairwise(places)]
    options: dict[str, Any] = {"tools": ("get", "the"), "thinking": thinking, "stop": ["ab", "b\n"]}
    assert parse(pieces, **options) == parse([reply], **options)


def test_thinking_that_is_cut_by_the_limit_is_no_answer() -> None:
    assert parse(["Let me see"], whole=False, **THINKS) == [Thinking("Let me see")]


def test_text_streams_before_its_line_ends() -> None:
    parser = ReplyParser(tools=TOOLS)
    assert parser.feed("\nThe weather") == [Text("The weather")]
    assert parser.feed(" is fine") == [Text(" is fine")]


def test_a_role_that_the_model_writes_itself_begins_a_segment() -> None:
    parser = ReplyParser(tools=TOOLS)
    events = parser.feed("\nI look.")
    events += parser.next_segment() + parser.feed('get_weather\n{"city": "Paris"}')
    assert merged(events + parser.finish()) == [Text("I look."), PARIS]


def test_a_long_call_is_read_once() -> None:
    """Each character is looked at once: a quadratic scan of a megabyte would take minutes."""
    parser = ReplyParser(tools=TOOLS)
    events = parser.feed('python\n{"code": "')
    for _ in range(2000):
        events += parser.feed("x" * 50)
    events += parser.feed('"}')
    assert events == [ToolCall("python", {"code": "x" * 100_000})]
