"""The table of dialects: goldens, and equality with transformers on each dialect's template."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calculator.errors import OptionError
from glm4q.chat.dialects import DIALECTS, stop_token_ids
from glm4q.chat.offers.listed import INTRODUCTION
from glm4q.chat.offers.sections import CALL_WITH_JSON, TOOLS_HEADING, Z1_INTRODUCTION
from glm4q.chat.replies import ReplyEvent, Text
from glm4q.chat.reply_start import ReplyStart
from glm4q.chat.template import ChatTemplate
from glm4q.chat.tool_messages import ToolResult, call_message, native_tools, result_message
from glm4q.tools.calls import BadCall, ToolCall
from tests.glm4q.chat.templates import render_in_transformers
from tests.paths import DATA

# ChatGLM3 has no template: this writes what build_chat_input of its tokenizer encodes.
CHATGLM3 = (
    "[gMASK]sop{% for m in messages %}<|{{ m.role }}|>{{ m.metadata }}\n {{ m.content }}"
    "{% if m.tools is defined %}{{ '\n' }}{{ m.tools | tojson(indent=4, ensure_ascii=False) }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _template_of_0414(*, introduction: str, before_tool: str, content: str, reply: str) -> str:
    """The way of the 2025 templates: tools, then system messages, then all others."""
    return (
        "[gMASK]<sop>{% if tools %}<|system|>\n"
        f"{introduction}{TOOLS_HEADING}"
        "{% for tool in tools %}{% set function = tool.function %}"
        f"{{{{ {before_tool!r} }}}}## {{{{ function.name }}}}\n\n"
        f"{{{{ function | tojson(indent=4, ensure_ascii=False) }}}}\n{CALL_WITH_JSON}"
        "{% endfor %}{% endif %}"
        "{% for m in messages if m.role == 'system' %}<|system|>\n{{ m.content }}{% endfor %}"
        "{% for m in messages if m.role != 'system' %}"
        "<|{{ m.role }}|>{{ m.metadata if m.role == 'assistant' }}\n"
        f"{{{{ {content} }}}}{{% endfor %}}{{% if add_generation_prompt %}}{reply}{{% endif %}}"
    )


TEMPLATES = {
    "chatglm3": CHATGLM3,
    "glm-4-0414": _template_of_0414(
        introduction="", before_tool="\n\n", content="m.content", reply="<|assistant|>"
    ),
    "glm-z1": _template_of_0414(
        introduction=Z1_INTRODUCTION,
        before_tool="\n",
        content="m.content.split('</think>')[-1].strip()",
        reply="<|assistant|>\n<think>",
    ),
}
OFFICIAL = DATA / "glm-4-9b-chat" / "tokenizer_config.json"
if OFFICIAL.is_file():
    TEMPLATES["glm-4"] = json.loads(OFFICIAL.read_text())["chat_template"]

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Co"])),
    st.sampled_from(["a</think>b", "<think>x</think>\n 北京 ", " \n", "{{ 1 }}"]),
)
names = st.sampled_from(["get_weather", "clock", "f"])
messages = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": texts}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": texts}, optional={"metadata": names}
    ),
    st.fixed_dictionaries({"role": st.just("observation"), "content": texts}),
)
tools = st.lists(
    st.fixed_dictionaries({"name": names, "description": texts}).map(
        lambda function: {"type": "function", "function": function}
    ),
    max_size=3,
)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@settings(max_examples=150, deadline=None)
@given(st.lists(messages, min_size=1, max_size=6), tools, st.booleans())
def test_conversations_render_as_in_transformers(
    name: str, conversation: list[dict[str, Any]], offered: list[Any], prompted: bool
) -> None:
    given_tools = offered if name not in ("glm-4", "chatglm3") else None
    first: dict[str, Any] = {"role": "system", "tools": offered}
    if name == "chatglm3":
        first |= {"content": INTRODUCTION, "tools": [tool["function"] for tool in offered]}
    shown = [first, *conversation] if offered and given_tools is None else conversation
    ours = ChatTemplate(DIALECTS[name], ()).render(
        conversation, tools=offered, add_generation_prompt=prompted
    )
    assert ours == render_in_transformers(TEMPLATES[name], shown, prompted, given_tools or None)


def test_prompt_of_0414_is_that_of_its_published_template() -> None:
    function = {"name": "get_weather", "description": "Get the weather", "parameters": {}}
    user = {"role": "user", "content": "what is the weather in Paris?"}
    rendered = ChatTemplate(DIALECTS["glm-4-0414"], ()).render(
        [user], tools=[{"type": "function", "function": function}]
    )
    assert rendered == (
        "[gMASK]<sop><|system|>\n# 可用工具\n\n## get_weather\n\n{\n"
        '    "name": "get_weather",\n    "description": "Get the weather",\n    "parameters": {}\n}'
        f"\n{CALL_WITH_JSON}<|user|>\nwhat is the weather in Paris?<|assistant|>"
    )


def test_z1_opens_its_thinking_and_reads_no_earlier_one() -> None:
    conversation = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<think>easy</think>\n2"},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2+2?"},
    ]
    assert ChatTemplate(DIALECTS["glm-z1"], ()).render(conversation) == (
        "[gMASK]<sop><|system|>\nBe brief.<|user|>\n1+1?<|assistant|>\n2<|user|>\n2+2?"
        "<|assistant|>\n<think>"
    )


def test_dialect_is_used_in_place_of_the_template_or_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "wrong"}')
    glm4 = DIALECTS["glm-4"].control_tokens
    template = ChatTemplate.from_directory(tmp_path, glm4, "glm-z1")
    assert template.render([{"role": "user", "content": "hi"}]).endswith("<think>")
    with pytest.raises(OptionError, match="must be chatglm3, glm-4, glm-4-0414, glm-z1, not 'x'"):
        ChatTemplate.from_directory(tmp_path, glm4, "x")
    with pytest.raises(OptionError, match="has no sop"):
        ChatTemplate.from_directory(tmp_path, glm4, "chatglm3")


CALL = ToolCall("get_weather", {"city": "北京", "days": [1, 2], "now": True})
WRITTEN = {
    "chatglm3": "get_weather\n ```python\ntool_call(city='北京', days=[1, 2], now=True)\n```",
    "glm-4": 'get_weather\n{"city": "北京", "days": [1, 2], "now": true}',
    "glm-4-0414": 'get_weather\n{"city": "北京", "days": [1, 2], "now": true}',
    "glm-z1": 'get_weather\n{"city": "北京", "days": [1, 2], "now": true}',
}
"""How each dialect writes the call, behind the token of the assistant's role."""
ANSWERS = {name: "\n Rain." if name == "chatglm3" else "\nRain." for name in WRITTEN}
OBSERVED = {name: f"<|observation|>{DIALECTS[name].before_content}23 degrees" for name in WRITTEN}


def _read(name: str, written: str) -> list[ReplyEvent]:
    """What the dialect's parser reads, checked to be the same wherever the reply is cut."""
    dialect = DIALECTS[name]
    readings = []
    for cut in range(len(written) + 1):
        parser = ReplyStart(True, False).parser(["get_weather"], (), dialect.style)
        events = parser.feed(written[:cut]) + parser.feed(written[cut:]) + parser.finish()
        text = "".join(event.text for event in events if isinstance(event, Text))
        others = [event for event in events if not isinstance(event, Text)]
        readings.append(([Text(text)] if text else []) + others)
    assert all(reading == readings[0] for reading in readings)
    return readings[0]


@pytest.mark.parametrize("name", DIALECTS)
def test_calls_and_observations_are_written_and_read_as_the_dialect_has_them(name: str) -> None:
    dialect = DIALECTS[name]
    assert _read(name, WRITTEN[name]) == [CALL]
    assert _read(name, ANSWERS[name]) == [Text("Rain.")]
    called = call_message(CALL, dialect.style, "")
    observed = result_message(ToolResult(CALL, "23 degrees"), dialect.style, "")
    rendered = ChatTemplate.of_dialect(dialect, ()).render(
        [{"role": "user", "content": "?"}, called, observed], add_generation_prompt=False
    )
    assert rendered.endswith(f"<|assistant|>{WRITTEN[name]}{OBSERVED[name]}")


CHECKPOINTS = {"glm-4-9b": "glm-4", "glm-4-9b-chat": "glm-4", "glm-4-9b-chat-1m": "glm-4"}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_replies_end_with_the_tokens_that_the_authors_files_state(checkpoint: str) -> None:
    directory, dialect = DATA / checkpoint, DIALECTS[CHECKPOINTS[checkpoint]]
    if not directory.is_dir():
        pytest.skip(f"the authors' files of {checkpoint} are not here")
    tokens = json.loads((directory / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    control_tokens = {token["content"]: int(number) for number, token in tokens.items()}
    ids = {control_tokens[token] for token in dialect.stop_tokens}
    for name in ("config.json", "generation_config.json"):
        assert ids == set(json.loads((directory / name).read_text())["eos_token_id"])
    assert stop_token_ids(control_tokens) == ids


def test_a_reply_ends_as_its_dialect_says_where_no_file_says_so() -> None:
    """ChatGLM3's ids are those of stream_chat in modeling_chatglm.py of chatglm3-6b."""
    chatglm3 = {"</s>": 2, "[gMASK]": 64790, "sop": 64792, "<|system|>": 64794, "<|user|>": 64795}
    chatglm3 |= {"<|assistant|>": 64796, "<|observation|>": 64797}
    assert stop_token_ids(chatglm3) == {2, 64795, 64797}
    glm4 = {token: number for number, token in enumerate(sorted(DIALECTS["glm-z1"].control_tokens))}
    assert stop_token_ids(glm4) == {glm4["<|user|>"]}  # a vocabulary that lacks the others
    assert stop_token_ids({"<|im_end|>": 2, "<|user|>": 3}) == frozenset()


def test_chatglm3_is_offered_tools_as_its_authors_describe_it() -> None:
    """https://github.com/THUDM/ChatGLM3/blob/main/PROMPT_en.md"""
    function = {"name": "clock", "parameters": {}}
    template = ChatTemplate.of_dialect(DIALECTS["chatglm3"], ())
    rendered = template.render(
        [{"role": "user", "content": "Time?"}], tools=[{"type": "function", "function": function}]
    )
    assert rendered == (
        "[gMASK]sop<|system|>\n Answer the following questions as best as you can. You have access "
        'to the following tools:\n[\n    {\n        "name": "clock",\n        "parameters": {}\n'
        "    }\n]<|user|>\n Time?<|assistant|>"
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("tool_call('Paris')", "each argument needs its name"),
        ("tool_call(**{'a': 1})", "each argument needs its name"),
        ("tool_call(a=__import__('os').system('true'))", "is no value"),
        ("tool_call(a={1, 2})", "not JSON serializable"),
        ("tool_call(a=1e999)", "not JSON compliant"),
    ],
)
def test_a_python_call_that_is_no_data_is_never_run_and_named(code: str, reason: str) -> None:
    parser = ReplyStart(True, False).parser(["f"], (), "python")
    (bad,) = parser.feed(f"f\n```python\n{code}\n```") + parser.finish()
    assert isinstance(bad, BadCall)
    assert reason in bad.reason


def test_glm4s_own_tools_are_offered_as_its_template_does_and_called_with_text() -> None:
    if "glm-4" not in TEMPLATES:
        pytest.skip("the authors' template is not here")
    kinds: list[dict[str, Any]] = [{"type": "python"}, {"type": "simple_browser"}]
    user = {"role": "user", "content": "?"}
    shown = render_in_transformers(
        TEMPLATES["glm-4"], [{"role": "system", "tools": kinds}, user], True
    )
    assert ChatTemplate(DIALECTS["glm-4"], ()).render([user], tools=kinds) == shown
    assert native_tools(TEMPLATES["glm-4"]) == DIALECTS["glm-4"].natives
    start = ReplyStart(True, False)
    parser = start.parser(["simple_browser"], (), "metadata", ["simple_browser"])
    events = parser.feed('simple_browser\nsearch("GPTQ")\n') + parser.finish()
    assert events == [ToolCall("simple_browser", {"code": 'search("GPTQ")'})]
