"""What a load and a conversation ask once and then carry: formats of weights, and kernels."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calculator.checkpoint.quantization import Quantization
from calculator.checkpoint.stored import StoredModel
from calculator.model.architecture import Weight, weights
from calculator.model.formats import WeightFormat
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from glm4q.kernels.choose import ATTENTION, KERNELS
from glm4q.kernels.dense import DENSE
from glm4q.kernels.layers import FUSED
from glm4q.kernels.norm import NORMS
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe

GREEDY = SamplingParams(temperature=0, max_tokens=4)


@pytest.fixture(scope="module", params=["bf16", "int4"])
def directory(
    request: pytest.FixtureRequest, chat_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    if request.param == "bf16":
        return chat_checkpoint
    output = tmp_path_factory.mktemp("once") / "int4"
    quantize_checkpoint(StoredModel.open(chat_checkpoint), output, Recipe(WeightFormat(4, 32)))
    return output


def _count(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, key: Callable[[Any, Any], object]
) -> Counter[object]:
    """Count the calls of a method. key: of the object and the first argument."""
    calls: Counter[object] = Counter()
    original: Callable[..., Any] = getattr(owner, method)

    def counting(self: object, asked: Any, /, *others: Any) -> Any:
        calls[key(self, asked)] += 1
        return original(self, asked, *others)

    monkeypatch.setattr(owner, method, counting)
    return calls


def _talk(directory: Path) -> LLM:
    llm = LLM.load(directory, device="cpu")
    chat = llm.session(params=GREEDY)
    for question in ("Hello", "And then?"):
        list(chat.ask(question))
    return llm


def test_the_format_of_each_weight_is_derived_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized = StoredModel.open(directory).layouts.keys()
    formats = _count(monkeypatch, StoredModel, "_read_format", lambda _, weight: weight)
    layouts = _count(monkeypatch, Quantization, "layout", lambda _, module: module.name)
    llm = _talk(directory)
    assert formats == dict.fromkeys(weights(llm.model.config), 1)
    assert quantized <= layouts.keys()
    assert set(layouts.values()) <= {1}


def test_the_kernel_of_each_kind_of_weight_is_chosen_once_and_used(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = (KERNELS, DENSE, NORMS, ATTENTION, FUSED)
    counters = [
        _count(monkeypatch, owner, "refuses", lambda kernel, spec: (id(kernel), spec))
        for owner in {type(kernel) for kernels in lists for kernel in kernels}
    ]
    llm = _talk(directory)
    assert set(sum(counters, Counter()).values()) == {1}
    chosen = llm.run_plan.weights["host"]
    by_weight: dict[Weight, Any] = {**chosen.quantized, **chosen.dense}
    linears = {each for each in weights(llm.model.config) if each.can_be_quantized}
    assert by_weight.keys() == linears
    for weight, (_, choice) in by_weight.items():
        assert llm.model.get_submodule(weight.module).kernel is choice.kernel
