"""Text to ids and back: a tiny vocabulary always, GLM-4's where it lies beside the project."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiktoken
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calculator.errors import TokenizerError
from glm4q.text.tiktoken_bpe import PATTERN, recover_merges
from glm4q.text.tokenizer import GLM4_CONTROL_TOKENS, USER_END, USER_START, Tokenizer
from tests.paths import DATA

GLM4 = DATA / "glm-4-9b-chat"
needs_data = pytest.mark.skipif(not GLM4.is_dir(), reason=f"GLM-4's tokenizer is not in {GLM4}")

# "abc" can be cut in two ways; no merges lead to "xyzzy".
TINY_MERGED = [b"ab", b"bc", b"abc", b"he", b"ll", b"hell", b"hello", b" hello", b"  ", b"xyzzy"]
TINY_MERGED += [b"\xe4\xbd", b"\xe4\xbd\xa0", b"\xf0\x9f", b"\r\n", b"11", b"'s"]
TINY_TOKENS = [*(bytes([byte]) for byte in range(256)), *TINY_MERGED]
TINY_RANKS = {token: rank for rank, token in enumerate(TINY_TOKENS)}
TINY_ADDED = ["[gMASK]", "<sop>", "<|user|>", "<|user|>!", "<think>"]
END = len(TINY_RANKS)

SCRIPTS = ["abchelowxyz", "   \t\r\n", "0123456789", "'stRVEmlD", "你好吗等\uff0c", "안녕مرحباनमस्ते"]
SCRIPTS += ["😀👩\u200d👧🇨🇳", "\x00\x07\u200b\u0301\ufeff", "<|user|>[gMASK]"]
texts = st.lists(
    st.one_of(
        st.text(),
        *(st.text(alphabet=script) for script in SCRIPTS),
        st.builds(str.__mul__, st.sampled_from("a 1\n你😀-"), st.integers(0, 300)),
        st.sampled_from(["<|user|>", "<sop>", "hello xyzzy", " 等"]),
    )
).map("".join)


def write_tiktoken(path: Path, ranks: dict[bytes, int]) -> None:
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks.items()]
    (path / "tokenizer.model").write_text("\n".join(lines) + "\n")


def write_config(path: Path, added: dict[int, str]) -> None:
    decoder = {
        str(token_id): {"content": content, "special": content != "<think>"}
        for token_id, content in added.items()
    }
    (path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tiny")
    write_tiktoken(path, TINY_RANKS)
    write_config(path, dict(enumerate(TINY_ADDED, start=END)))
    return Tokenizer.from_directory(path)


@pytest.fixture(scope="module")
def glm4() -> Tokenizer:
    return Tokenizer.from_directory(GLM4)


@pytest.fixture(scope="module", params=["tiny", pytest.param("glm4", marks=needs_data)])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    named: Tokenizer = request.getfixturevalue(request.param)
    return named


@pytest.fixture(scope="module")
def peer(tokenizer: Tokenizer, tiny: Tokenizer) -> tiktoken.Encoding:
    ranks = TINY_RANKS
    if tokenizer is not tiny:
        lines = (line.split() for line in (GLM4 / "tokenizer.model").read_bytes().splitlines())
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return tiktoken.Encoding("peer", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})


# Encoding


@needs_data
def test_ids_are_the_published_ones(glm4: Tokenizer) -> None:
    golden = json.loads((DATA / "golden" / "tokenizer.json").read_text())
    for case in golden["cases"]:
        assert glm4.encode(case["text"]) == case["ids"]


@given(texts.filter(lambda text: "<think>" not in text))
@settings(max_examples=300)
@example("abcabc xyzzy")
@example("\u0301'S '\u017f ǅ Ⅷ ½ \u2028\u0085\u180e\u3000 x")
def test_text_is_encoded_as_in_tiktoken(
    tokenizer: Tokenizer, peer: tiktoken.Encoding, text: str
) -> None:
    assert tokenizer.encode(text) == peer.encode_ordinary(text)


@given(texts)
def test_plain_text_comes_back_and_holds_no_control_id(tokenizer: Tokenizer, text: str) -> None:
    token_ids = tokenizer.encode(text)
    assert not set(token_ids) & set(tokenizer.control_tokens.values())
    assert tokenizer.decode(token_ids) == text


def test_added_tokens_that_are_no_control_tokens_belong_to_the_text(tiny: Tokenizer) -> None:
    assert tiny.encode("a<think>b") == [97, tiny.token_id("<think>"), 98]
    assert "<think>" not in tiny.control_tokens


def test_half_a_surrogate_pair_becomes_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a\ud83d") == tokenizer.encode("a\ufffd")
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


def test_a_truncation_saved_in_tokenizer_json_cuts_no_text(tiny: Tokenizer, tmp_path: Path) -> None:
    tiny.save(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(2)
    backend.enable_padding(length=8)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_directory(tmp_path).encode("a b c") == tiny.encode("a b c")


# Prompts


def test_a_prompt_has_control_tokens(tokenizer: Tokenizer) -> None:
    user, text = tokenizer.token_id("<|user|>"), tokenizer.encode("\n你好")
    token_ids = tokenizer.encode_prompt("[gMASK]<sop><|user|>\n你好<|user|>")
    assert token_ids == [*tokenizer.prefix_ids, user, *text, user]


def test_a_longer_control_token_wins_over_its_beginning(tiny: Tokenizer) -> None:
    assert tiny.encode_prompt("<|user|>!") == [tiny.token_id("<|user|>!")]


@given(st.lists(st.one_of(st.text("ab |>\n你"), st.sampled_from(["<|user|>", "[gMASK]"]))))
def test_marked_control_tokens_are_text_like_what_stands_around_them(
    tokenizer: Tokenizer, parts: list[str]
) -> None:
    marked = "".join(
        f"{USER_START}{part}{USER_END}" if part in tokenizer.control_tokens else part
        for part in parts
    )
    assert tokenizer.encode_prompt(marked) == tokenizer.encode("".join(parts))


@pytest.mark.parametrize("mark", [USER_START, USER_END])
def test_a_lone_mark_vanishes_and_joins_no_control_token(tokenizer: Tokenizer, mark: str) -> None:
    assert tokenizer.encode_prompt(f"a<|us{mark}er|>") == tokenizer.encode("a<|user|>")
    assert tokenizer.encode_prompt(f"{mark}<|user|>") == [tokenizer.token_id("<|user|>")]


# Decoding


def test_decoding_skips_control_tokens_and_padding_ids(tokenizer: Tokenizer) -> None:
    hello = tokenizer.encode("hello")
    padding = tokenizer.vocab_size + 100
    token_ids = [*tokenizer.prefix_ids, padding, *hello, padding]
    assert "".join(tokenizer.stream(token_ids)) == tokenizer.decode(token_ids) == "hello"


@given(texts.filter(lambda text: "\ufffd" not in text))
@example("😀👩‍👧你好")
def test_a_streamed_text_holds_no_broken_character(tokenizer: Tokenizer, text: str) -> None:
    pieces = list(tokenizer.stream(tokenizer.encode(text)))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@given(st.data())
@settings(max_examples=300)
def test_streaming_any_ids_gives_what_decoding_gives(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    any_id = st.integers(0, tokenizer.vocab_size + 200)
    token_ids = data.draw(st.lists(st.one_of(any_id, st.integers(0, 255))))
    assert "".join(tokenizer.stream(token_ids)) == tokenizer.decode(token_ids)


@given(st.data())
@settings(deadline=None)
def test_streaming_a_long_run_of_stray_bytes_gives_what_decoding_gives(
    tiny: Tokenizer, data: st.DataObject
) -> None:
    stray = st.sampled_from([0x80, 0xBD, 0xA0, 0xE4, 0xF0, 0x9F, 0xFF, END, END + 99])
    token_ids = data.draw(st.lists(stray, min_size=60, max_size=300))
    assert "".join(tiny.stream(token_ids)) == tiny.decode(token_ids)


@pytest.mark.parametrize("token_ids", [[0xBD], [0xE4, END]])
def test_stray_bytes_do_not_gather(tiny: Tokenizer, token_ids: list[int]) -> None:
    """Whatever gathered would be decoded anew with every token."""
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        for read in range(1, 1000):
            yield token_ids[read % len(token_ids)]

    pieces = tiny.stream(endless())
    next(pieces)
    assert read < 50
    next(pieces)
    assert read < 100


def test_a_character_is_streamed_as_soon_as_it_is_whole(tiny: Tokenizer) -> None:
    assert list(tiny.stream(tiny.encode("a😀b"))) == ["a", "😀", "b"]


def test_a_stream_that_stops_within_a_character_shows_the_loss(tiny: Tokenizer) -> None:
    assert list(tiny.stream([97, *tiny.encode("😀")[:-1]])) == ["a", "\ufffd"]
    assert list(tiny.stream([0xFF, 97])) == ["\ufffda"]


# The vocabulary


def test_what_a_tokenizer_says_of_its_vocabulary(tiny: Tokenizer) -> None:
    assert tiny.vocab_size == END + len(TINY_ADDED)
    assert list(tiny.control_tokens) == ["[gMASK]", "<sop>", "<|user|>", "<|user|>!"]
    assert list(tiny.control_tokens.values()) == [END, END + 1, END + 2, END + 3]
    assert tiny.prefix_ids == [END, END + 1] == [*map(tiny.token_id, ["[gMASK]", "<sop>"])]
    assert tiny.token_id("<|nobody|>") is None


@needs_data
def test_what_glm4_says_of_its_vocabulary(glm4: Tokenizer) -> None:
    assert glm4.vocab_size == 151_343
    assert glm4.prefix_ids == [151_331, 151_333]
    assert list(glm4.control_tokens) == list(GLM4_CONTROL_TOKENS)
    assert list(glm4.control_tokens.values()) == list(range(151_329, 151_343))


@given(text=texts)
@settings(max_examples=50)
def test_the_bytes_of_tokens_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    spelled = b"".join(map(tokenizer.token_bytes, tokenizer.encode(text)))
    assert spelled == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def test_control_tokens_and_padding_ids_have_no_bytes(tokenizer: Tokenizer) -> None:
    control = [*tokenizer.control_tokens.values(), tokenizer.largest_id()[0] + 1]
    assert [tokenizer.token_bytes(token_id) for token_id in control] == [b""] * len(control)


def test_the_bytes_behind_an_unknown_decoder_are_refused() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0}, unk_token="a"))
    backend.decoder = tokenizers.decoders.WordPiece()
    with pytest.raises(TokenizerError, match="behind this decoder: WordPiece"):
        Tokenizer(backend).token_bytes(0)


def test_a_tokenizer_without_glm4s_prefix_has_none(tmp_path: Path) -> None:
    write_tiktoken(tmp_path, TINY_RANKS)
    write_config(tmp_path, {END: "<sop>"})
    assert Tokenizer.from_directory(tmp_path).prefix_ids == []


@needs_data
def test_the_original_needs_no_config(tmp_path: Path, glm4: Tokenizer) -> None:
    (tmp_path / "tokenizer.model").symlink_to(GLM4 / "tokenizer.model")
    assert Tokenizer.from_directory(tmp_path).control_tokens == glm4.control_tokens


@given(texts)
def test_a_saved_tokenizer_is_the_same(tokenizer: Tokenizer, saved: Tokenizer, text: str) -> None:
    assert saved.encode(text) == tokenizer.encode(text)
    assert saved.encode_prompt(text) == tokenizer.encode_prompt(text)


@pytest.fixture(scope="module")
def saved(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("saved")
    tokenizer.save(path)
    return Tokenizer.from_directory(path)


def test_merges_stand_in_the_order_of_other_converters() -> None:
    vocab = {"ab": 0, "c": 1, "a": 2, "b": 3, "bc": 4, "abc": 5}
    assert recover_merges(vocab) == [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")]


# Files that cannot be read


def test_a_directory_without_tokenizer_is_named_with_both_files(tmp_path: Path) -> None:
    one_line_error(tmp_path, names="neither tokenizer.json nor tokenizer.model")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([b"IQ== 0", b"Ig!== 1"], "line 2"),
        ([b"IQ== 0", b"Ig=="], "line 2"),
        ([b"IQ== zero"], "line 1"),
        ([b"\x0a\x0e\x0a\x05<unk>\x15\x00"], "is no whole SentencePiece model"),
        ([b"IQ== 0", b"Ig== 0"], "rank 0 belongs to more than one token"),
        ([b"IQ== 0", b"Ig== 2"], "no token has rank 1"),
        ([b"IQ== 0", b"Ig== 1"], "no token for the single byte 0x00"),
    ],
)
def test_a_malformed_tokenizer_model_is_named_with_its_fault(
    tmp_path: Path, lines: list[bytes], says: str
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n".join(lines))
    assert says in one_line_error(tmp_path, names="tokenizer.model")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": {"type": "BPE"}}'])
def test_a_malformed_tokenizer_json_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    one_line_error(tmp_path, names="tokenizer.json")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object, not a list"),
        ("{}", "no added_tokens_decoder"),
        ('{"added_tokens_decoder": ["<sop>"]}', "malformed"),
        ('{"added_tokens_decoder": {"one": {"content": "<sop>"}}}', "malformed"),
        ('{"added_tokens_decoder": {"1": {"special": true}}}', "malformed"),
        ('{"added_tokens_decoder": {"1": {"content": "<sop>"}}}', "cannot have id 1"),
    ],
)
def test_a_malformed_tokenizer_config_is_named_with_its_fault(
    tmp_path: Path, config: str, says: str
) -> None:
    write_tiktoken(tmp_path, TINY_RANKS)
    (tmp_path / "tokenizer_config.json").write_text(config)
    assert says in one_line_error(tmp_path, names="tokenizer_config.json")


def one_line_error(path: Path, *, names: str) -> str:
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_directory(path)
    message = str(caught.value)
    assert names in message
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("token", "is_read"), [(None, True), ("a", True), ("<unk>", False)])
def test_an_unknown_token_must_be_in_the_vocabulary(
    token: str | None, is_read: bool, tmp_path: Path
) -> None:
    """Without it, the first character that the vocabulary lacks fails with a bare Exception."""
    settings = {} if token is None else {"unk_token": token}
    model = tokenizers.models.BPE(vocab={"a": 0, "b": 1}, merges=[], **settings)
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    if is_read:
        assert Tokenizer.from_directory(tmp_path).encode("ab") == [0, 1]
    else:
        with pytest.raises(TokenizerError, match=r"tokenizer\.json has the unk_token '<unk>'"):
            Tokenizer.from_directory(tmp_path)


def test_a_vocabulary_of_all_bytes_needs_no_unknown_token(tmp_path: Path) -> None:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(alphabet)}
    model = tokenizers.models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.from_directory(tmp_path).encode("é\U0001f600")) == 6
