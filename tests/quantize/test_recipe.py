"""Recipes as TOML, and what is refused."""

from pathlib import Path

import pytest

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.model.formats import WeightFormat
from quantize.recipe import make_recipe, read_recipe

WHOLE = """
method = "awq"
weights = "int4"
group_size = 32
asymmetric = true
lm_head = "int8"

[[layers]]
match = "model.layers.1.*"
weights = "int8"

[[layers]]
match = ["*.mlp.down_proj"]
weights = "int4"
group_size = "channel"
"""


def read(text: str, directory: Path) -> Path:
    path = directory / "recipe.toml"
    path.write_text(text)
    return path


def test_last_rule_that_matches_holds(tiny_vocabulary_checkpoint: Path, tmp_path: Path) -> None:
    recipe = read_recipe(read(f"\ufeff{WHOLE}", tmp_path))  # as Windows' editors begin a file
    formats = recipe.formats(StoredModel.open(tiny_vocabulary_checkpoint))
    found = {
        weight.module: weight_format
        for weight, weight_format in formats.items()
        if weight.can_be_quantized
    }
    assert recipe.method == "awq"
    assert found["model.layers.0.self_attn.q_proj"] == WeightFormat(4, 32, zero_bits=4)
    assert found["model.layers.1.self_attn.q_proj"] == WeightFormat(8, 32, zero_bits=8)
    assert found["model.layers.1.mlp.down_proj"] == WeightFormat(4, None, zero_bits=4)
    assert found["lm_head"] == WeightFormat(8, 32)


def test_method_follows_the_bits() -> None:
    assert make_recipe(weights="int4").method == "gptq"
    assert make_recipe(weights="int8").method == "rtn"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('weights = "int3"', "weights must be one of int8, int4, not int3"),
        ("weights = 4", "weights must be a word in quotes, not 4"),
        ('weights = "int4"\nmethod = "obq"', "method must be one of"),
        ('weights = "int4"\ngroupsize = 64', "groupsize is not a setting"),
        ('weights = "int4"\nasymmetric = "yes"', "asymmetric must be true or false"),
        ('weights = "int4"\nlayers = "all"', "layers must be an array of tables"),
        ('weights = "int4"\n[[layers]]\nweights = "int8"', "match must be patterns"),
        ("weights = ", "is not TOML"),
        ("", "weights must be a word"),
    ],
)
def test_bad_recipe_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        read_recipe(read(text, tmp_path))
    assert "recipe.toml" in str(caught.value)


def test_pattern_that_matches_nothing_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    text = 'weights = "int4"\ngroup_size = 32\n[[layers]]\nmatch = "layers.7.*"\nweights = "int8"'
    with pytest.raises(OptionError, match=r"no linear layer of the model matches layers\.7\.\*"):
        read_recipe(read(text, tmp_path)).formats(StoredModel.open(tiny_checkpoint))
