"""A conversation goes on in another KV cache: the same weights, and no memory of the old one."""

import gc
import weakref
from pathlib import Path

import pytest

from calculator.errors import DoesNotFitError, MemoryFullError, OptionError
from glm4q import LLM, SamplingParams
from glm4q.chat.session import ChatSession
from glm4q.chat.sessions.keeper import SessionKeeper
from glm4q.chat.sessions.session_file import SessionDirectory
from glm4q.memory.allocation import Memory
from tests.chat_checkpoint import END


@pytest.fixture
def llm(chat_checkpoint: Path) -> LLM:
    return LLM.load(chat_checkpoint, device="cpu", context=512, kv="int8")


@pytest.fixture
def session(llm: LLM) -> ChatSession:
    """A conversation of letters: bytes that are no text would be more tokens in the next prompt."""
    letters = dict.fromkeys(llm.tokenizer.encode("abcdefgh"), 100)
    params = SamplingParams(temperature=0, max_tokens=12, logit_bias={**letters, END: -100})
    session = llm.session("Be brief.", params)
    "".join(session.ask("first"))
    return session


def test_it_goes_on_as_if_it_had_begun_there(
    llm: LLM, session: ChatSession, chat_checkpoint: Path
) -> None:
    memory = weakref.ref(llm.rows.runner.memory.cache.tensors[0])
    changed = llm.with_cache("bf16", 1024)
    gc.collect()
    assert memory() is None
    assert (changed.plan.settings.kv, changed.plan.settings.context) == ("bf16", 1024)
    assert session.context_size == 1024
    other = LLM.load(chat_checkpoint, device="cpu", context=1024, kv="bf16")
    expected = other.session("Be brief.", session.params)
    expected.rewind(session.messages)
    assert "".join(session.ask("second")) == "".join(expected.ask("second"))
    assert session.last_answer is not None
    assert session.last_answer.cached_tokens == 0
    "".join(session.ask("third"))
    assert session.last_answer.cached_tokens > 0


def test_as_much_context_as_fits_and_no_more(llm: LLM, session: ChatSession) -> None:
    with pytest.raises(DoesNotFitError, match="in int4 has room for 8,192 tokens at most"):
        llm.with_cache("int4", 9000)
    with pytest.raises(OptionError, match="kv must be one of"):
        llm.with_cache("int3")
    "".join(session.ask("second"))
    assert session.last_answer is not None
    assert session.last_answer.cached_tokens > 0  # nothing was given back
    assert llm.with_cache("int4").plan.settings.context == 8192


def test_where_its_memory_cannot_be_had_the_old_one_is_made_again(
    llm: LLM, session: ChatSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate, refused = Memory.allocate, [True]

    def allocate_later(*arguments: object) -> Memory:
        if refused and refused.pop():
            raise MemoryFullError("another program took it")
        return allocate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Memory, "allocate", allocate_later)
    with pytest.raises(MemoryFullError, match="another program took it"):
        llm.with_cache("bf16")
    assert session.context_size == 512
    assert "".join(session.ask("second"))


def test_not_while_an_answer_runs(llm: LLM, session: ChatSession) -> None:
    answer = session.ask("second")
    next(answer)
    with pytest.raises(OptionError, match="while an answer runs"):
        llm.with_cache("bf16")
    assert "".join(answer)


def test_what_is_kept_on_disk_belongs_to_each_cache(
    llm: LLM, session: ChatSession, tmp_path: Path
) -> None:
    running = [llm]
    keeper = SessionKeeper(
        session,
        SessionDirectory(tmp_path / "sessions"),
        lambda: running[0].keep_prefixes(tmp_path / "prefixes", limit=1 << 30),
        model="tiny",
    )
    assert keeper.save("narrow") is None
    with keeper.cache_changes():
        running[0] = llm.with_cache("bf16", 1024)
    assert "".join(session.ask("second"))
    assert keeper.save("wide") is None
    assert "it comes from a run with --kv int8" in (keeper.load("narrow") or "")
    assert keeper.load("wide") is None
