"""Grammars: what is refused, and why; masks over GLM-4's vocabulary."""

import json
import time
from typing import Any

import jsonschema
import pytest
import torch

from calculator.errors import GrammarError
from glm4q.decode.sampling import Sampler, SamplingParams
from glm4q.text.grammar.compiler import MOST_KEPT, GrammarCompiler
from glm4q.text.grammar.grammar import Grammar, joined
from glm4q.text.tokenizer import Tokenizer
from tests.paths import DATA

GLM4 = DATA / "glm-4-9b-chat"
VOCAB_SIZE = 151_552
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "名": {"type": "string", "maxLength": 12},
        "n": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["ä", "🙂", "c d"]}, "maxItems": 3},
    },
    "required": ["名", "n", "tags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "object", "not": {}}, "these keywords are not supported: not"),
        ({"contains": {}, "uniqueItems": True}, "not supported: contains, uniqueItems"),
        ({"properties": {"a": {"if": {}}}, "type": "object"}, "not supported: if"),
        ({"$ref": "http://127.0.0.1/schema"}, r"\$ref may only point into the schema itself"),
        ({"$ref": "file:///etc/hostname"}, r"\$ref may only point into the schema itself"),
        ({"oneOf": [{"type": "string"}, {"minLength": 2}]}, "oneOf is supported only where"),
        ({"minimum": 5, "maximum": 2, "type": "number"}, "minimum .5. is greater than maximum"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead and look-behind"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"type": "string", "format": "colour"}, "Unknown format: colour"),
        ({"type": "strin"}, "Invalid type: strin"),
        ({"items": {"x-guidance": {"lenient": True}}}, "x-guidance is not supported"),
        (False, "Unsatisfiable schema"),
        ([], "a schema must be an object or a boolean"),
        ({"enum": [float("nan")]}, "a schema must be plain JSON"),
        ({"enum": ["x" * 200_000]}, "a schema has 131,072 characters at most, not 200,0"),
    ],
)
def test_a_schema_that_cannot_be_honoured_is_refused_with_the_reason(
    schema: Any, reason: str
) -> None:
    with pytest.raises(GrammarError, match=reason) as refused:
        Grammar.from_json_schema(schema)
    assert "\n" not in str(refused.value)


def test_a_deep_schema_is_refused_without_recursion() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(GrammarError, match="nested 64 levels deep at most"):
        Grammar.from_json_schema(schema)


@pytest.mark.parametrize(
    ("regex", "reason"),
    [("a(", "unclosed group"), (r"(a)\1", "backreferences"), ("a" * 9000, "8,192 characters")],
)
def test_a_regular_expression_that_cannot_be_read_is_refused(regex: str, reason: str) -> None:
    with pytest.raises(GrammarError, match=reason):
        Grammar.from_regex(regex)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("start: other", "unknown name"),
        ("", "must not be empty"),
        ('start: "a" <|user|> /b/', r"names the token <\|user\|>, and answers contain text only"),
        ("start: <[7]>", r"names the token <\[7\]>"),
    ],
)
def test_a_grammar_that_cannot_be_read_is_refused(text: str, reason: str) -> None:
    with pytest.raises(GrammarError, match=reason):
        Grammar.from_lark(text)


def test_a_grammar_may_write_what_looks_like_a_token() -> None:
    Grammar.from_lark('start: "<|user|>" /<b>\\/</ "\\"<" // <|user|>')


@pytest.fixture(scope="module")
def glm4() -> Tokenizer:
    if not GLM4.is_dir():
        pytest.skip(f"GLM-4's tokenizer is not in {GLM4}")
    return Tokenizer.from_directory(GLM4)


@pytest.fixture(scope="module")
def compiler(glm4: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(glm4, VOCAB_SIZE, [glm4.control_tokens["<|user|>"]])


@pytest.mark.parametrize(
    "regex", ["(a{0,900}){0,900}", "(.*a.{12}b.{12}){1,60}", "(a|b)*a(a|b){20}"]
)
def test_a_costly_regular_expression_costs_a_step_little(
    compiler: GrammarCompiler, regex: str
) -> None:
    """The thread that runs the model makes the masks: all answers of a server wait for them."""
    grammar = joined("start: @text", {"text": Grammar.from_regex(regex)})
    constraint = compiler.constraint(grammar)
    constraint.mask(torch.randn(VOCAB_SIZE))
    begun = time.process_time()
    for _ in range(8):
        if not constraint.finished:
            constraint.accept(int(constraint.mask(torch.randn(VOCAB_SIZE)).argmax()))
    assert time.process_time() - begun < 8


def test_random_logits_over_glm4s_vocabulary_give_what_the_schema_says(
    glm4: Tokenizer, compiler: GrammarCompiler
) -> None:
    """Control tokens and padding ids are the likeliest by far, and only the end may come."""
    source = joined("start: @answer", {"answer": Grammar.from_json_schema(SCHEMA)})
    logits = torch.randn(VOCAB_SIZE)
    logits[151_329:] = 30
    for seed in range(3):
        constraint = compiler.constraint(source)
        sampler = Sampler(SamplingParams(seed=seed), logits.device, constraint=constraint)
        tokens: list[int] = []
        while not constraint.finished:
            tokens.append(sampler(logits).token)
        assert constraint.complete
        assert max(tokens) < 151_329
        jsonschema.validate(json.loads(glm4.decode(tokens)), SCHEMA)


def test_an_answer_that_may_end_may_go_on(glm4: Tokenizer, compiler: GrammarCompiler) -> None:
    constraint = compiler.constraint(joined("start: @a", {"a": Grammar.from_regex("ab?")}))
    logits = torch.zeros(VOCAB_SIZE)
    allowed = constraint.mask(logits.clone()).isfinite().nonzero().flatten().tolist()
    assert {glm4.decode([token]) for token in allowed} == {"a", "ab"}
    (a,) = glm4.encode("a")
    constraint.accept(a)
    assert (constraint.complete, constraint.finished) == (True, False)
    allowed = constraint.mask(logits.clone()).isfinite().nonzero().flatten().tolist()
    assert allowed == sorted([*glm4.encode("b"), glm4.control_tokens["<|user|>"]])


def test_forced_text_is_a_guess_in_the_tokenizers_own_tokens(
    glm4: Tokenizer, compiler: GrammarCompiler
) -> None:
    constraint = compiler.constraint('start: "The capital is " /Paris|Rome/')
    assert constraint.draft([1, 2], 3) == glm4.encode("The capital is ")[:3]
    for token in glm4.encode("The capital is"):
        constraint.accept(token)
    guess = [*glm4.encode(" Paris"), *glm4.encode(" and")]
    assert constraint.draft(guess, 8) == glm4.encode(" Paris")


def test_work_without_bound_ends_in_an_error(compiler: GrammarCompiler, glm4: Tokenizer) -> None:
    regex = Grammar.from_regex("((a{0,1000}){0,1000}){0,1000}b")
    constraint = compiler.constraint(joined("start: @a", {"a": regex}))
    logits = torch.zeros(VOCAB_SIZE)
    (a,) = glm4.encode("a")

    def go_on() -> None:
        for _ in range(100):
            constraint.mask(logits.clone())
            constraint.accept(a)

    with pytest.raises(GrammarError, match="it takes too much work"):
        go_on()


def test_grammars_are_compiled_once_and_forgotten_in_turn(compiler: GrammarCompiler) -> None:
    sources = [f'start: "{number}"' for number in range(MOST_KEPT + 3)]
    for source in sources:
        compiler.constraint(source)
    assert list(compiler._kept) == sources[3:]


def test_a_model_without_an_end_is_refused(glm4: Tokenizer) -> None:
    with pytest.raises(GrammarError, match="no token that ends an answer"):
        GrammarCompiler(glm4, VOCAB_SIZE, []).constraint('start: "a"')
