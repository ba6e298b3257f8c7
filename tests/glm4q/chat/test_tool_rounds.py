"""Tool calls in a conversation: asked for, run, bounded, fed back as the template reads them."""

from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

from calculator.errors import TokenizerError, ToolError
from glm4q.chat import dialects
from glm4q.chat.replies import Text, Thinking
from glm4q.chat.session import MOST_ROUNDS, ChatSession
from glm4q.chat.template import ChatTemplate, JinjaRenderer
from glm4q.chat.tool_messages import Consent, ToolResult, call_style
from glm4q.decode.batch import Batch
from glm4q.decode.sampling import SamplingParams
from glm4q.text.tokenizer import Tokenizer
from glm4q.tools.calls import BadCall, ToolCall
from glm4q.tools.functions import Tool, Toolbox
from tests import tiny
from tests.glm4q.memories import memory_on_cpu
from tests.glm4q.scripted import ScriptedRunner

GREEDY = SamplingParams(temperature=0)
TOKENS = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n<think>{% endif %}"
)
OPENAI = (
    "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for m in messages %}"
    "<|{{ m.role }}|>\n{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
    "{{ m.content }}{% endfor %}<|assistant|>"
)
CALL = 'weather\n{"city": "Paris"}'


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def _tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(BPE({token: rank for rank, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([*TOKENS])
    return Tokenizer(backend)


TOKENIZER = _tokenizer()
CONTROL = TOKENIZER.control_tokens
GLM4 = ChatTemplate(dialects.GLM4, CONTROL)


def _jinja(source: str) -> ChatTemplate:
    renderer = JinjaRenderer(source, {}, name=Path("test"))
    return ChatTemplate(renderer, CONTROL, call_style=call_style(source))


def _session(
    *replies: str,
    template: ChatTemplate = GLM4,
    consent: Consent = lambda call: True,
    tools: tuple[Tool, ...] = (Tool.from_function(weather),),
    stop: tuple[str, ...] = (),
) -> tuple[ChatSession, ScriptedRunner]:
    """A session whose model gives these replies, each ended by <|user|>."""
    script = [i for reply in replies for i in TOKENIZER.encode_prompt(reply + "<|user|>")]
    config = replace(tiny.BASE, max_position_embeddings=8192)
    memory = memory_on_cpu(config, 8192, chunk=8192)
    model = ScriptedRunner(script, TOKENIZER.vocab_size, memory)
    session = ChatSession(
        Batch(model),
        TOKENIZER,
        template,
        stop_token_ids=frozenset({CONTROL["<|user|>"]}),
        params=GREEDY,
        toolbox=Toolbox(tools),
        consent=consent,
        stop=stop,
    )
    return session, model


def test_call_is_run_and_its_result_fed_back() -> None:
    session, model = _session(CALL, "\nTake an umbrella.")
    call = ToolCall("weather", {"city": "Paris"})
    events = [event for event in session.stream("Weather?") if not isinstance(event, Text)]
    assert events == [call, ToolResult(call, "rain in Paris")]
    assert [*map(dict, session.messages)] == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "metadata": "weather", "content": '{"city": "Paris"}'},
        {"role": "observation", "content": "rain in Paris"},
        {"role": "assistant", "content": "Take an umbrella."},
    ]
    # What the model wrote is in the cache: only its last character and what follows is run.
    prompts = [run for run in model.seen if len(run) > 1]
    observation = "<|observation|>\nrain in Paris<|assistant|>"
    assert prompts[1] == TOKENIZER.encode_prompt(observation)


def test_ask_gives_the_text_alone() -> None:
    session, _ = _session(CALL, "\nTake an umbrella.")
    assert "".join(session.ask("Weather?")) == "Take an umbrella."


def test_prose_before_a_call_is_a_message_of_its_own() -> None:
    session, model = _session(f"\nI look.<|assistant|>{CALL}", "\nRain.")
    assert "".join(session.ask("Weather?")) == "I look.Rain."
    assert session.messages[1] == {"role": "assistant", "content": "I look."}
    assert session.messages[2]["metadata"] == "weather"
    prompts = [run for run in model.seen if len(run) > 1]
    assert prompts[1][0] == CONTROL["<|observation|>"]


def test_refused_call_does_not_run_and_the_model_reads_so() -> None:
    ran: list[str] = []

    def delete(path: str) -> None:
        """Delete a file."""
        ran.append(path)

    session, _ = _session(
        'delete\n{"path": "/"}',
        "\nAs you wish.",
        consent=lambda call: False,
        tools=(Tool.from_function(delete),),
    )
    assert "".join(session.ask("Clean up")) == "As you wish."
    assert not ran
    assert "does not allow" in session.messages[2]["content"]


def test_interrupt_while_consent_is_asked_leaves_a_whole_conversation() -> None:
    def interrupt(call: ToolCall) -> bool:
        raise KeyboardInterrupt

    session, _ = _session(CALL, "\nHello.", consent=interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(session.ask("Weather?"))
    assert [message["role"] for message in session.messages] == ["user", "assistant", "observation"]
    assert "interrupted" in session.messages[-1]["content"]
    assert "".join(session.ask("Hello")) == "Hello."


def test_call_that_cannot_be_read_goes_back_twice_and_no_more() -> None:
    bad = "weather\n{'city': 1}"
    session, model = _session(bad, bad, bad, "\nnever")
    events = list(session.stream("Weather?"))
    assert [type(event) for event in events] == [BadCall, ToolResult] * 3
    observations = [m["content"] for m in session.messages if m["role"] == "observation"]
    assert all("not valid JSON" in text for text in observations)
    assert model.script == TOKENIZER.encode_prompt("\nnever<|user|>")


def test_calls_without_end_are_stopped() -> None:
    session, _ = _session(*[CALL] * MOST_ROUNDS)
    with pytest.raises(ToolError, match=f"{MOST_ROUNDS} times"):
        list(session.ask("Weather?"))
    assert session.messages[-1]["content"] == "rain in Paris"


def test_thinking_is_streamed_apart_and_never_fed_back() -> None:
    session, _ = _session("I ponder.</think>\nParis", template=_jinja(THINKING), tools=())
    events = list(session.stream("Capital?"))
    assert "".join(e.text for e in events if isinstance(e, Thinking)) == "I ponder."
    assert "".join(e.text for e in events if isinstance(e, Text)) == "Paris"
    assert session.messages[-1] == {"role": "assistant", "content": "Paris"}


def test_templates_of_the_openai_kind_get_tool_calls() -> None:
    session, _ = _session(CALL, "\nRain.", template=_jinja(OPENAI))
    assert "".join(session.ask("Weather?")) == "Rain."
    _, call, result, _ = session.messages
    assert call["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Paris"}}
    assert (result["role"], result["content"]) == ("tool", "rain in Paris")
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]


def test_template_without_tools_is_refused_before_a_question() -> None:
    with pytest.raises(TokenizerError, match="takes no tools"):
        _session(template=_jinja(THINKING))


def test_stop_string_ends_the_answer_and_the_decoding() -> None:
    session, model = _session("\nOne. Two. ###Three.", "\nFour.", stop=("###",))
    assert "".join(session.ask("Count")) == "One. Two. "
    assert session.messages[-1]["content"] == "One. Two. "
    assert session.last_answer
    assert session.last_answer.finish_reason == "stop"
    model.script = TOKENIZER.encode_prompt("\nFour.<|user|>")  # the rest is never asked for
    assert "".join(session.ask("And?")) == "Four."
