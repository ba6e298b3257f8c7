"""The table of dialects: goldens, and equality with transformers on each dialect's template."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calculator.errors import OptionError
from glm4q.chat.dialects import CALL_WITH_JSON, DIALECTS, TOOLS_HEADING, Z1_INTRODUCTION
from glm4q.chat.template import ChatTemplate
from tests.glm4q.chat.templates import render_in_transformers
from tests.paths import DATA

CHATGLM3 = (
    "[gMASK]sop{% for m in messages %}<|{{ m.role }}|>{{ m.metadata }}\n {{ m.content }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
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
    if name == "chatglm3":
        offered = []
    given_tools = offered if name != "glm-4" else None
    told = [{"role": "system", "tools": offered}, *conversation]
    shown = told if name == "glm-4" and offered else conversation
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
