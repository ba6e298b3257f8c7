"""A SentencePiece tokenizer.model gives the sentencepiece library's ids, and ChatGLM3's chat."""

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calculator.errors import TokenizerError
from glm4q.chat.template import ChatTemplate
from glm4q.text.tokenizer import Tokenizer
from tests.paths import ROOT

sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
TEXTS = [
    "Once upon a time there was a river.",
    "def f(x):\n    return x ** 2\n\n",
    "你好,世界! 12345 times  two spaces",  # few of these characters are pieces: bytes
    " leading and trailing ",
    "",
    "philosophy and <|user|> are text, [gMASK] too",
    "emoji 🙂 and \t tabs",
]


def train(folder: Path, **options: object) -> Path:
    """A small model, trained on the held-out text with the settings of ChatGLM's."""
    text = (ROOT / "quantize" / "data" / "held-out.txt").read_text(encoding="utf-8")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()),
        model_writer=model,
        **{
            "model_type": "bpe",
            "vocab_size": 700,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "minloglevel": 2,
            **options,
        },
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return folder


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture(scope="module")
def theirs(directory: Path) -> Any:
    return sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))


@pytest.fixture(scope="module")
def both(directory: Path, theirs: Any) -> tuple[Tokenizer, Any]:
    return Tokenizer.from_directory(directory), theirs


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_library(text: str, directory: Path, theirs: Any) -> None:
    tokenizer = Tokenizer.from_directory(directory)
    assert tokenizer.encode(text) == theirs.encode(text)
    spelled = b"".join(map(tokenizer.token_bytes, tokenizer.encode(text)))
    assert spelled.decode().removeprefix(" ") == text  # its tokenizer begins a text with a space
    assert tokenizer.decode(tokenizer.encode(text)) == theirs.decode(theirs.encode(text))


def test_whitespace_that_the_model_removes_is_removed(tmp_path: Path) -> None:
    directory = train(tmp_path, remove_extra_whitespaces=True)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    tokenizer = Tokenizer.from_directory(directory)
    for text in ("  two  spaces  here ", "one two"):
        assert tokenizer.encode(text) == theirs.encode(text)


def test_control_tokens_follow_the_pieces_as_in_the_authors_code(
    directory: Path, theirs: Any
) -> None:
    tokenizer, pieces = Tokenizer.from_directory(directory), theirs.vocab_size()
    names = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>")
    assert [tokenizer.control_tokens[name] for name in names] == list(range(pieces, pieces + 7))
    assert tokenizer.prefix_ids == [pieces + 1, pieces + 3]


def test_a_chat_has_the_ids_that_the_authors_code_builds(directory: Path, theirs: Any) -> None:
    """tokenization_chatglm.py of chatglm3-6b encodes the role's line and the content apart."""
    tokenizer, pieces = Tokenizer.from_directory(directory), theirs.vocab_size()
    template = ChatTemplate.from_directory(directory, tokenizer.control_tokens)
    content = "What is philosophy, sop?"
    prompt = template.render([{"role": "user", "content": content}])
    user = [pieces + 6, *theirs.encode("\n"), *theirs.encode(content)]
    assert tokenizer.encode_prompt(prompt) == [pieces + 1, pieces + 3, *user, pieces + 7]


def test_a_conversation_has_the_ids_that_the_authors_code_builds(
    directory: Path, theirs: Any
) -> None:
    """build_chat_input joins, for each message, role, `metadata` and a line break, and content."""
    tokenizer = Tokenizer.from_directory(directory)
    template = ChatTemplate.from_directory(directory, tokenizer.control_tokens)
    messages = [
        {"role": "system", "content": "Answer in one line."},
        {"role": "user", "content": "Where does the river run?"},
        {"role": "assistant", "content": "Past the mill.\n\nAnd on.", "metadata": "look"},
        {"role": "observation", "content": "{'river': 1}"},
    ]
    expected = [tokenizer.control_tokens[name] for name in ("[gMASK]", "sop")]
    for message in messages:
        expected.append(tokenizer.control_tokens[f"<|{message['role']}|>"])
        expected += theirs.encode(f"{message.get('metadata', '')}\n")
        expected += theirs.encode(message["content"])
    expected.append(tokenizer.control_tokens["<|assistant|>"])
    assert tokenizer.encode_prompt(template.render(messages)) == expected


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_has_the_ids_of_the_library(both: tuple[Tokenizer, Any], text: str) -> None:
    ours, theirs = both
    assert ours.encode(text) == theirs.encode(text)


def test_another_kind_of_model_is_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path, model_type="unigram")
    with pytest.raises(TokenizerError, match=r"tokenizer\.model is a SentencePiece model that is"):
        Tokenizer.from_directory(tmp_path)


def test_a_cut_file_is_refused(directory: Path, tmp_path: Path) -> None:
    whole = (directory / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(whole[:-3])
    with pytest.raises(TokenizerError, match="is no whole SentencePiece model"):
        Tokenizer.from_directory(tmp_path)
