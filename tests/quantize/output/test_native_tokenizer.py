"""The authors' own layout, tokenizer.model and all, becomes what transformers loads as it is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import WeightFormat
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.paths import DATA


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny native chatglm checkpoint with GLM-4-9B-Chat's tokenizer, quantized."""
    authors = DATA / "glm-4-9b-chat"
    if not (authors / "tokenizer.model").exists():
        pytest.skip("GLM-4's tokenizer.model is not here")
    config = replace(tiny.BASE, vocab_size=151_552, hidden_size=32, num_hidden_layers=1)
    root = tmp_path_factory.mktemp("native")
    source = tiny.save_native(tiny.transformers_model(config), config, root / "source")
    for name in ("tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(authors / name, source / name)
    quantize_checkpoint(StoredModel.open(source), root / "out", Recipe(WeightFormat(4, 32)))
    return root / "out"


def test_transformers_tokenizes_prompts_as_the_authors_do(quantized: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(quantized)
    for case in json.loads((DATA / "golden" / "prompts.json").read_text()):
        rendered = tokenizer.apply_chat_template(
            case["messages"], add_generation_prompt=True, tokenize=False
        )
        assert rendered == case["rendered_transformers"]
        assert tokenizer.encode(rendered, add_special_tokens=False) == case["ids"]


def test_no_file_asks_for_remote_code(quantized: Path) -> None:
    for path in quantized.glob("*.json"):
        assert "auto_map" not in json.loads(path.read_text())
    assert AutoConfig.from_pretrained(quantized).model_type == "glm"


def test_stop_tokens_are_carried_over(quantized: Path) -> None:
    settings = json.loads((quantized / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [151329, 151336, 151338]
