"""Every small JSON file of a checkpoint with a wrong value in any place: an error of ours, or none.

The examples are generated: a value anywhere in a true file is replaced, wrapped or removed.
"""

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calculator.checkpoint.quantization import read_quantization
from calculator.checkpoint.stored import StoredModel
from calculator.errors import Glm4qError
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat
from glm4q.chat.template import ChatTemplate
from glm4q.text.generation_config import read_sampling_params, read_stop_token_ids
from glm4q.text.tokenizer import Tokenizer
from quantize.output.companions import write_companions
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.glm4q.text.test_tokenizer import TINY_RANKS, write_tiktoken
from tests.glm4q.text.test_vocabulary import write_tokenizer

EXAMPLES = settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
ADDED = {"content": "<sop>", "special": True, "lstrip": False, "normalized": False}
NATIVE = {
    "model_type": "chatglm",
    "padded_vocab_size": 96,
    "hidden_size": 96,
    "ffn_hidden_size": 160,
    "num_layers": 2,
    "num_attention_heads": 6,
    "multi_query_attention": True,
    "multi_query_group_num": 3,
    "kv_channels": 32,
    "seq_length": 256,
    "layernorm_epsilon": 1e-5,
    "rope_ratio": 1,
    "add_qkv_bias": True,
    "eos_token_id": [1, 2],
    "quantization_bit": 0,
    "torch_dtype": "bfloat16",
}
GENERATION = {
    "do_sample": True,
    "temperature": 0.8,
    "top_p": 0.8,
    "top_k": 50,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "eos_token_id": [1, 2],
}
TOKENIZER = {
    "bos_token": None,
    "eos_token": "<|endoftext|>",
    "pad_token": dict(ADDED),
    "chat_template": [{"name": "default", "template": "{{ messages[0].content }}{{ eos_token }}"}],
    "auto_map": {"AutoTokenizer": ["code.Tokenizer", None]},
}

QUANTIZATIONS: list[dict[str, Any]] = [
    {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    {"quant_method": "awq", "version": "gemm", "bits": 4, "zero_point": True},
    {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "sym": True},
    {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {
            "group_0": {
                "format": "pack-quantized",
                "targets": ["Linear"],
                "weights": {"num_bits": 4, "type": "int", "group_size": 32, "symmetric": True},
                "input_activations": None,
            }
        },
        "sparsity_config": {"format": "dense"},
        "transform_config": {},
    },
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 0, 2**63, 1e308, float("nan"), float("inf"), -0.0, 1.5])
    | st.text(max_size=4)
    | st.sampled_from(["\ud800", "../../etc", "true", "gptq", "default", "yarn", ""])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, the whole included."""
    yield path
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in inner:
            yield from places(item, (*path, key))


def put(whole: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """A copy of a JSON value with the value in one place changed."""
    if not path:
        return change(whole)
    whole = copy.deepcopy(whole)
    parent = whole
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = change(parent[path[-1]])
    return whole


@st.composite
def variants(draw: st.DrawFn, whole: dict[str, Any]) -> Any:
    """One or two changes in any place; or a key that the file does not have."""
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(whole))))
        value = draw(values)
        kind = draw(st.sampled_from(["replace", "list", "text", "negative", "times"]))
        whole = put(whole, path, partial(changed, kind, value))
    return whole


def changed(kind: str, value: Any, old: Any) -> Any:
    """A value as somebody else might have written it."""
    if kind == "list":
        return [old]
    if kind == "text":
        return str(old)
    if isinstance(old, int | float) and kind != "replace":
        return -old if kind == "negative" else old * 10**9
    return value


def refused_or_read(read: Callable[[], object]) -> None:
    """Any other exception fails the test."""
    with contextlib.suppress(Glm4qError):
        read()


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def gptq(tiny_vocabulary_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPTQ checkpoint of several shards, with an index."""
    directory = tmp_path_factory.mktemp("variants") / "gptq"
    quantize_checkpoint(
        StoredModel.open(tiny_vocabulary_checkpoint),
        directory,
        Recipe(WeightFormat(4, 32)),
        shard_bytes=60_000,
    )
    return directory


@pytest.mark.parametrize(
    "name", ["config.json", "quantize_config.json", "model.safetensors.index.json"]
)
@EXAMPLES
@given(data=st.data())
def test_files_of_a_checkpoint(
    name: str, gptq: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.getbasetemp() / f"variant-{name}"
    directory.mkdir(exist_ok=True)
    for file in gptq.iterdir():
        if file.name != name and not (directory / file.name).exists():
            (directory / file.name).symlink_to(file)
    if name == "quantize_config.json":  # it is read where config.json has no settings
        config = json.loads((gptq / "config.json").read_text())
        config.pop("quantization_config")
        (directory / "config.json").unlink()
        write(directory / "config.json", config)
    write(directory / name, data.draw(variants(json.loads((gptq / name).read_text()))))

    def read() -> None:
        stored = StoredModel.open(directory)
        _ = stored.formats
        (directory / "out").mkdir(exist_ok=True)
        write_companions(stored, directory / "out", stored.config, {"quant_method": "none"})

    refused_or_read(read)


@pytest.mark.parametrize("settings", QUANTIZATIONS, ids=lambda each: each["quant_method"])
@EXAMPLES
@given(data=st.data())
def test_settings_of_every_quantizer(
    settings: dict[str, Any], tmp_path: Path, data: st.DataObject
) -> None:
    write(tmp_path / "config.json", {"quantization_config": data.draw(variants(settings))})
    refused_or_read(lambda: read_quantization(tmp_path))


@EXAMPLES
@given(data=st.data())
def test_the_authors_own_config(tmp_path: Path, data: st.DataObject) -> None:
    write(tmp_path / "config.json", data.draw(variants(NATIVE)))
    refused_or_read(lambda: ModelConfig.from_json(tmp_path / "config.json"))


@EXAMPLES
@given(data=st.data())
def test_generation_config(tmp_path: Path, data: st.DataObject) -> None:
    write(tmp_path / "generation_config.json", data.draw(variants(GENERATION)))
    refused_or_read(lambda: read_sampling_params(tmp_path))
    refused_or_read(lambda: read_stop_token_ids(tmp_path, tiny.BASE))


@EXAMPLES
@given(data=st.data())
def test_tokenizer_config_beside_a_tiktoken_file(tmp_path: Path, data: st.DataObject) -> None:
    write_tiktoken(tmp_path, TINY_RANKS)
    first = len(TINY_RANKS)
    decoder = {"added_tokens_decoder": {str(first): ADDED, str(first + 1): {"content": "<b>"}}}
    write(tmp_path / "tokenizer_config.json", data.draw(variants({**TOKENIZER, **decoder})))

    def read() -> None:
        tokenizer = Tokenizer.from_directory(tmp_path)
        ChatTemplate.from_directory(tmp_path, tokenizer.control_tokens).render(
            [{"role": "user", "content": "a"}]
        )

    refused_or_read(read)


@EXAMPLES
@given(data=st.data())
def test_chat_template_json(tmp_path: Path, data: st.DataObject) -> None:
    write(tmp_path / "chat_template.json", data.draw(variants({"chat_template": "{{ messages }}"})))
    refused_or_read(lambda: ChatTemplate.from_directory(tmp_path, ["<|user|>"]))


@EXAMPLES
@given(data=st.data())
def test_tokenizer_json(tmp_path: Path, data: st.DataObject) -> None:
    write_tokenizer(tmp_path, added_id=97)
    true = json.loads((tmp_path / "tokenizer.json").read_text())
    true["model"]["vocab"] = dict(list(true["model"]["vocab"].items())[:8])
    write(tmp_path / "tokenizer.json", data.draw(variants(true)))
    refused_or_read(lambda: Tokenizer.for_model(tmp_path, tiny.BASE).encode("ab c"))
