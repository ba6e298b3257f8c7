"""A recipe: the method and the format of all layers, and rules for the layers that differ.

A recipe file is TOML:

    method = "gptq"        # rtn, gptq, awq or auto; gptq for int4 and rtn for int8 if left out
    weights = "int4"       # int8, int4
    group_size = 128       # 32, 64, 128 or "channel"
    lm_head = "int8"       # bf16 or int8

    [[layers]]             # of several rules that match a module, the last one counts
    match = ["model.layers.0.*", "model.layers.39.*"]
    weights = "int8"       # int8, int4 or bf16
"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.model.architecture import Weight
from calculator.model.formats import BF16, WeightFormat, assign_formats, parse_format, refuse_unfit
from calculator.options import one_of
from calculator.questions.widths.slots import HEAD_SLOT, Bits, Widths

METHODS = ("rtn", "gptq", "awq", "auto")
WEIGHTS = ("int8", "int4")
LARGEST_FILE = 1 << 20
DEFAULT_GROUP_SIZE = "128"


@dataclass(frozen=True)
class Rule:
    """A format for the modules whose names match glob patterns."""

    match: tuple[str, ...]
    weight_format: WeightFormat

    def matches(self, weight: Weight) -> bool:
        return any(fnmatchcase(weight.module, pattern) for pattern in self.match)


@dataclass(frozen=True)
class Recipe:
    """The method and formats of a checkpoint."""

    linear: WeightFormat
    head: WeightFormat = BF16
    method: str = "rtn"
    rules: tuple[Rule, ...] = ()

    @property
    def is_calibrated(self) -> bool:
        return self.method != "rtn"

    def formats(self, stored: StoredModel) -> dict[Weight, WeightFormat]:
        """The format of each weight of the output. Raises OptionError where one does not fit."""
        if stored.is_quantized:
            raise OptionError(f"{stored.directory} is quantized already")
        formats = assign_formats(stored.config, self.linear, self.head)
        for rule in self.rules:
            matched = [each for each in formats if each.role == "linear" and rule.matches(each)]
            if not matched:
                raise OptionError(f"no linear layer of the model matches {', '.join(rule.match)}")
            formats.update(dict.fromkeys(matched, rule.weight_format))
        refuse_unfit(formats)
        return formats


def make_recipe(
    *,
    weights: str,
    group_size: str = DEFAULT_GROUP_SIZE,
    asymmetric: bool = False,
    lm_head: str = "bf16",
    method: str | None = None,
) -> Recipe:
    """Make a recipe of the command line's words. Raises OptionError.

    method: if None, GPTQ for int4, and rounding to nearest for int8, which loses next to nothing.
    """
    one_of("weights", weights, WEIGHTS)
    one_of("lm head", lm_head, ("bf16", "int8"))
    method = method or ("gptq" if weights == "int4" else "rtn")
    return Recipe(
        parse_format(weights, group_size, symmetric=not asymmetric),
        parse_format(lm_head, group_size),
        one_of("method", method, METHODS),
    )


def recipe_of_widths(widths: Widths, bits: Bits, method: str | None = None) -> Recipe:
    """Make a recipe of the width that was chosen for each matrix. Raises OptionError.

    method: if None, GPTQ where a matrix has 4 bits, and rounding to nearest where none has.
    """
    head = bits.get(HEAD_SLOT, BF16.bits)
    linears = {slot: bits[slot.name] for slot in widths.slots if slot.name != HEAD_SLOT}
    counts = Counter(each for each in linears.values() if each != BF16.bits)
    usual = max(counts or {8: 0}, key=lambda each: (counts[each], -each))
    rules = tuple(
        Rule(
            tuple(
                weight.module
                for slot, own in linears.items()
                if own == other
                for weight in slot.weights
            ),
            widths.format(other),
        )
        for other in sorted({*linears.values()} - {usual})
    )
    default = "gptq" if 4 in linears.values() else "rtn"
    return Recipe(
        widths.format(usual),
        widths.format(head),
        one_of("method", method or default, METHODS),
        rules,
    )


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file. Raises OptionError."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from None
    if len(text) > LARGEST_FILE:
        raise OptionError(f"{path} is no recipe: it has more than {LARGEST_FILE:,} bytes")
    try:
        return _from_toml(tomllib.loads(text.decode("utf-8-sig")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is not TOML: {error}") from None
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from None


def _from_toml(table: Mapping[str, Any]) -> Recipe:
    _refuse_unknown(table, ("method", "weights", "group_size", "asymmetric", "lm_head", "layers"))
    asymmetric = table.get("asymmetric", False)
    if not isinstance(asymmetric, bool):
        raise OptionError(f"asymmetric must be true or false, not {asymmetric!r}")
    group_size = str(table.get("group_size", DEFAULT_GROUP_SIZE))
    recipe = make_recipe(
        weights=_word(table, "weights"),
        group_size=group_size,
        asymmetric=asymmetric,
        lm_head=_word(table, "lm_head", "bf16"),
        method=_word(table, "method") if "method" in table else None,
    )
    layers = table.get("layers", [])
    if not isinstance(layers, list) or not all(isinstance(rule, dict) for rule in layers):
        raise OptionError("layers must be an array of tables: [[layers]]")
    rules = tuple(_rule(rule, group_size, symmetric=not asymmetric) for rule in layers)
    return Recipe(recipe.linear, recipe.head, recipe.method, rules)


def _rule(table: Mapping[str, Any], group_size: str, *, symmetric: bool) -> Rule:
    _refuse_unknown(table, ("match", "weights", "group_size"))
    match = table.get("match")
    patterns = [match] if isinstance(match, str) else match
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise OptionError(f"match must be patterns of module names, not {match!r}")
    weights = one_of("weights", _word(table, "weights"), (*WEIGHTS, "bf16"))
    size = str(table.get("group_size", group_size))
    weight_format = BF16 if weights == "bf16" else parse_format(weights, size, symmetric=symmetric)
    return Rule(tuple(patterns), weight_format)


def _word(table: Mapping[str, Any], name: str, default: str | None = None) -> str:
    word = table.get(name, default)
    if not isinstance(word, str):
        raise OptionError(f"{name} must be a word in quotes, not {word!r}")
    return word


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in table:
        if name not in known:
            raise OptionError(f"{name} is not a setting; {', '.join(known)} are")
