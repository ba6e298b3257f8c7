"""`LLM.load(NAME, make=True)`: a program gets the model that it names, which is made once."""

from pathlib import Path

import pytest

from calculator.errors import Glm4qError, OptionError
from glm4q import LLM, SamplingParams
from quantize.store.entries import Store
from tests.hub_server import Hub
from tests.quantize.store.sources import divide

NAME = "owner/tiny"
SHARD_BYTES = 200_000
GREEDY = SamplingParams(temperature=0, max_tokens=6)


def test_a_program_makes_a_model_by_its_name_once(
    hub: Hub, chat_checkpoint: Path, tmp_path: Path
) -> None:
    hub.repository(NAME, divide(chat_checkpoint, tmp_path / "tiny", SHARD_BYTES))
    store = tmp_path / "store"
    with pytest.raises(OptionError, match=f"{NAME} is not in the store: glm4q pull {NAME}"):
        LLM.load(NAME, store=store)
    assert not hub.asked
    first = LLM.load(NAME, make=True, store=store, device="cpu", kv="int8", context=512)
    (entry,) = Store(store).entries()
    assert first.directory == entry.directory
    assert (first.fit.settings.kv, first.fit.settings.context) == ("int8", 512)
    answer = first.chat("Hello", GREEDY).text
    assert answer
    asked = len(hub.asked)
    again = LLM.load(NAME, store=store, device="cpu", kv="int8", context=512)
    assert again.chat("Hello", GREEDY).text == answer
    assert len(hub.asked) == asked


def test_a_name_that_the_hub_does_not_give_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.token = "secret"
    with pytest.raises(Glm4qError) as refused:
        LLM.load(NAME, make=True, store=tmp_path / "store", device="cpu")
    assert NAME in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not [*Store(tmp_path / "store").entries()]
