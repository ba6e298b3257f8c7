"""Conversations on disk: what was read is not read again, and a wrong file is never believed."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from calculator.errors import SessionError
from calculator.questions.fit import Wish
from glm4q.chat.session import ChatSession
from glm4q.chat.sessions.keeper import SessionKeeper
from glm4q.chat.sessions.session_file import SessionDirectory
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM

GREEDY = SamplingParams(temperature=0, max_tokens=12)
BOOK = "It was a dark and stormy night; " * 6


class Chat:
    """A process of its own, as far as memory goes: a model, a conversation and its keeper."""

    def __init__(self, checkpoint: Path, files: Path, *, kv: str = "int8") -> None:
        self.llm = LLM.load(checkpoint, device="cpu", wish=Wish(context=1024, kv=kv))
        self.session: ChatSession = self.llm.session(params=GREEDY)
        self.keeper = SessionKeeper(
            self.session,
            SessionDirectory(files / "sessions"),
            lambda: self.llm.keep_prefixes(files / "prefixes", limit=1 << 30),
            model=str(checkpoint),
        )

    def ask(self, question: str) -> str:
        return "".join(self.session.ask(question))

    @property
    def cached(self) -> int:
        assert self.session.last_answer is not None
        return self.session.last_answer.cached_tokens


@pytest.fixture
def checkpoint(chat_checkpoint: Path, tmp_path: Path) -> Path:
    """One that a test may change."""
    return Path(shutil.copytree(chat_checkpoint, tmp_path / "checkpoint"))


@pytest.mark.parametrize("kv", ["bf16", "int4"])
def test_a_loaded_conversation_goes_on_as_if_it_had_never_ended(
    kv: str, chat_checkpoint: Path, tmp_path: Path
) -> None:
    chat = Chat(chat_checkpoint, tmp_path, kv=kv)
    chat.ask(BOOK)
    assert chat.keeper.save("book") is None
    used = chat.session.context_used
    row, tokens = chat.session.row()
    runner = chat.llm.rows._runner
    following = torch.tensor([[7]])
    expected = runner(following, [row.cache]).clone()
    row.cache.truncate(tokens)

    loaded = Chat(chat_checkpoint, tmp_path, kv=kv)
    assert loaded.keeper.load("book") is None
    row, tokens = loaded.session.row()
    assert tokens == used - 1  # the newest token is not run before another follows
    assert torch.equal(loaded.llm.rows._runner(following, [row.cache]), expected)
    row.cache.truncate(tokens)
    assert loaded.ask("And then?") == chat.ask("And then?")
    assert loaded.cached == chat.cached


def test_a_book_that_was_read_once_opens_in_another_conversation(
    chat_checkpoint: Path, tmp_path: Path
) -> None:
    chat = Chat(chat_checkpoint, tmp_path)
    assert not chat.llm.has_kept_prefixes(tmp_path / "prefixes")
    chat.ask(f"{BOOK}\n\nWho wrote it?")
    chat.keeper.save("book")
    other = Chat(chat_checkpoint, tmp_path)
    other.llm.keep_prefixes(tmp_path / "prefixes", limit=1 << 30)
    other.ask(f"{BOOK}\n\nWhen was it?")
    assert other.cached >= len(BOOK)


def test_a_cache_of_another_run_is_not_used(checkpoint: Path, tmp_path: Path) -> None:
    chat = Chat(checkpoint, tmp_path)
    answer = chat.ask(BOOK)
    chat.keeper.save("book")
    other = Chat(checkpoint, tmp_path, kv="bf16")
    problem = other.keeper.load("book")
    assert problem is not None
    assert "it comes from a run with --kv int8" in problem
    assert other.session.messages[-1]["content"] == answer
    other.ask("And then?")
    assert other.cached == 0

    weights = checkpoint / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4000] ^= 1  # one bit of one weight
    weights.write_bytes(content)
    changed = Chat(checkpoint, tmp_path)
    problem = changed.keeper.load("book")
    assert problem is not None
    assert "other weights" in problem
    changed.ask("And then?")
    assert changed.cached == 0


def test_a_damaged_cache_is_read_again_from_the_messages(
    chat_checkpoint: Path, tmp_path: Path
) -> None:
    chat = Chat(chat_checkpoint, tmp_path)
    chat.ask(BOOK)
    chat.keeper.save("book")
    (block,) = (tmp_path / "prefixes").glob("*/*.safetensors")
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 16
    block.write_bytes(content)
    loaded = Chat(chat_checkpoint, tmp_path)
    problem = loaded.keeper.load("book")
    assert problem is not None
    assert "its checksum differs" in problem
    assert problem.count("\n") == 0
    assert loaded.ask("And then?")
    assert loaded.cached == 0
    assert len(loaded.session.messages) == 4


def test_every_flipped_byte_of_a_session_is_noticed(chat_checkpoint: Path, tmp_path: Path) -> None:
    chat = Chat(chat_checkpoint, tmp_path)
    chat.ask("caf\u00e9")
    chat.keeper.save("short")
    file = tmp_path / "sessions" / "short.json"
    assert file.stat().st_mode & 0o077 == 0
    whole = file.read_bytes()
    before = chat.session.conversation
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(SessionError, match=r"short\.json is damaged"):
            chat.keeper.load("short")
        assert chat.session.conversation == before
    file.write_bytes(whole)
    assert chat.keeper.load("short") is None
    file.write_text(json.dumps(["nothing"]))
    with pytest.raises(SessionError, match="it is no session"):
        chat.keeper.load("short")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, "a b"])
def test_a_name_cannot_leave_the_directory(name: str, tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="1 to 64 letters"):
        SessionDirectory(tmp_path).file(name)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_kept_is_refused_before_all_weights_are_read(
    chat_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "sessions").write_text("a file, where a directory is needed")
    chat = Chat(chat_checkpoint, tmp_path)
    chat.ask("Hello")
    with pytest.raises(SessionError, match="the file of session book cannot be made"):
        chat.keeper.save("book")
    assert not (tmp_path / "prefixes").exists()


def test_what_another_chat_has_kept_meanwhile_is_not_overwritten(
    chat_checkpoint: Path, tmp_path: Path
) -> None:
    first, second = (Chat(chat_checkpoint, tmp_path) for _ in range(2))
    first.ask("Hello")
    first.keeper.save("book")
    second.keeper.load("book")
    second.ask("And then?")
    second.keeper.save("book")
    first.ask("What else?")
    with pytest.raises(SessionError, match="session book was changed by another chat meanwhile"):
        first.keeper.save("book")
    assert len(second.keeper.directory.read("book").conversation.messages) == 4
    first.keeper.save("mine")
    second.ask("And then?")
    second.keeper.save("book")
