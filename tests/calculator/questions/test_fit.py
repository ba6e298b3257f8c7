"""What a run becomes where not all is said: within what is free, and the best of what is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calculator.errors import OptionError
from calculator.memory.settings import Settings
from calculator.questions.fit import Fit, Wish, fit
from calculator.questions.question import Question
from tests.calculator.asking import ask

MIB = 1 << 20
SMALLEST = ask(weights="int4", lm_head="int8")


def fitted(free_mib: int, wish: Wish | None = None, question: Question = SMALLEST) -> Fit:
    return fit(question, wish or Wish(), free_mib * MIB)


def chosen(found: Fit) -> tuple[int, str, str]:
    return found.settings.context, found.settings.kv, found.settings.embedding


def test_a_large_card_gets_the_best_of_all() -> None:
    found = fitted(24_564)
    assert chosen(found) == (131_072, "bf16", "gpu")
    assert found.settings.prefill_chunk == 2048
    assert found.sentence().count(";") == 0, "nothing is left to be bettered"


def test_the_embedding_moves_before_the_cache_gets_coarser() -> None:
    need = ask(weights="int4", lm_head="int8", settings=Settings(context=131_072)).need_bytes
    found = fitted(need // MIB - 100)
    assert chosen(found) == (131_072, "bf16", "host")


def test_an_8_gb_card_holds_the_whole_context_in_int8() -> None:
    found = fitted(8188)
    assert chosen(found) == (131_072, "int8", "host")
    assert found.question.need_bytes <= 8188 * MIB
    assert "a bf16 KV cache would take" in found.sentence()
    assert "more than is free" in found.sentence()


def test_a_smaller_card_holds_less_context() -> None:
    found = fitted(6144)
    assert found.settings.kv == "int8"
    assert 8192 <= found.settings.context < 131_072
    assert "the whole context of 131,072 would take" in found.sentence()
    longer = Wish(context=found.settings.context + 4096, kv="int8")
    with pytest.raises(OptionError):
        fitted(6144, longer)


def test_where_weights_do_not_fit_layers_move_to_the_host() -> None:
    found = fitted(4096)
    assert found.settings.gpu_layers is not None
    assert 0 < found.settings.gpu_layers < 40
    assert f"{found.settings.gpu_layers} layers on the GPU" in found.sentence()
    settings = found.settings
    more = Wish(settings.context, settings.kv, None, settings.prefill_chunk, 1 + _layers(found))
    with pytest.raises(OptionError):
        fitted(4096, more)


def _layers(found: Fit) -> int:
    assert found.settings.gpu_layers is not None
    return found.settings.gpu_layers


def test_what_is_asked_for_is_refused_with_what_would_do() -> None:
    with pytest.raises(OptionError, match=r"context 131,072 with a bf16 .*--kv int8") as refused:
        fitted(8188, Wish(context=131_072, kv="bf16"))
    assert "\n" not in str(refused.value)
    with pytest.raises(OptionError, match=r"--context \d+"):
        fitted(6144, Wish(context=131_072))


def test_words_that_are_no_format() -> None:
    with pytest.raises(OptionError, match=r"kv must be one of .*, not int5"):
        Wish(kv="int5")


def test_the_host_takes_the_width_of_its_activations() -> None:
    settings = Settings(compute="host", embedding="host", activation_bits=32)
    found = fit(ask(weights="int4", settings=settings), Wish(context=4096), 20 << 30)
    assert found.settings.kv == "fp32"
    assert found.settings.prefill_chunk == 512


@pytest.mark.parametrize("wish", [Wish(gpu_layers=5), Wish(gpu_layers="auto")], ids=str)
def test_without_a_gpu_nothing_is_put_on_one(wish: Wish) -> None:
    settings = Settings(compute="host", embedding="host")
    question = ask(weights="int4", settings=settings)
    with pytest.raises(OptionError, match=r"gpu layers \w+ need a GPU"):
        fit(question, wish, 20 << 30)
    with pytest.raises(OptionError, match="embedding must be host"):
        fit(question, Wish(embedding="gpu"), 20 << 30)


@given(
    free=st.integers(1000, 30_000),
    context=st.none() | st.integers(1, 131_072),
    kv=st.none() | st.sampled_from(("bf16", "int8", "k8v4", "int4")),
    chunk=st.none() | st.integers(1, 4096),
    layers=st.none() | st.just("auto") | st.integers(0, 40),
)
def test_what_is_chosen_fits_and_keeps_what_was_said(
    free: int, context: int | None, kv: str | None, chunk: int | None, layers: int | str | None
) -> None:
    wish = Wish(context, kv, None, chunk, layers)  # type: ignore[arg-type]
    try:
        found = fitted(free, wish)
    except OptionError:
        return  # what does not fit is refused
    assert found.question.need_bytes <= free * MIB
    assert context in (None, found.settings.context)
    assert kv in (None, found.settings.kv)
    assert chunk in (None, found.settings.prefill_chunk)
    assert layers in (None, "auto", found.settings.gpu_layers)
    assert found.sentence()
