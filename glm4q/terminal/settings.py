"""`/set`: change one sampling setting by its name."""

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from calculator.errors import OptionError
from glm4q.decode.sampling import SamplingParams

NONE = "none"
"""The word that takes a limit away, as in `/set max_tokens none`."""

KINDS: Mapping[type, str] = {int: "a whole number", float: "a number", str: "text"}


def setting_names() -> tuple[str, ...]:
    """Return the names of all settings, in their order."""
    return tuple(field.name for field in dataclasses.fields(SamplingParams))


def with_setting(params: SamplingParams, name: str, text: str) -> SamplingParams:
    """Return the settings with one changed. SamplingParams itself refuses wrong values.

    Raises OptionError for an unknown name, and for a text that is not of the setting's type.
    """
    name = name.replace("-", "_")
    if name not in setting_names():
        raise OptionError(f"there is no setting {name}; the settings are {written(params)}")
    value = _read(name, text.strip(), get_type_hints(SamplingParams)[name])
    return dataclasses.replace(params, **{name: value})


def written(params: SamplingParams) -> str:
    """Write all settings in one line, as `/set` reads them."""
    return ", ".join(f"{name} {_write(getattr(params, name))}" for name in setting_names())


def _write(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or (not isinstance(value, int | float | str) and not value):
        return NONE
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, frozenset | tuple):
        return shlex.join(map(str, sorted(value) if isinstance(value, frozenset) else value))
    return str(value)


def _read(name: str, text: str, hint: Any) -> Any:
    """Read a text as the type of a setting."""
    if not text:
        raise OptionError(f"{name} needs a value, as in /set temperature 0.3")
    options = [option for option in get_args(hint) if option is not NoneType]
    if NoneType in get_args(hint):
        if text == NONE:
            return None
        hint = options[0]
    collection = get_origin(hint)
    if collection is None:
        return _scalar(name, text, hint)
    words = [] if text == NONE else _words(name, text)
    if isinstance(collection, type) and issubclass(collection, Mapping):
        key, item = get_args(hint)
        pairs = [word.partition("=") for word in words]
        return {_scalar(name, left, key): _scalar(name, right, item) for left, _, right in pairs}
    make: Callable[[list[Any]], Any] = collection
    return make([_scalar(name, word, get_args(hint)[0]) for word in words])


def _words(name: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        raise OptionError(f"{name}: a quotation mark is not closed in {text}") from None


def _scalar(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text not in ("on", "off"):
            raise OptionError(f"{name} must be on or off, not {text!r}")
        return text == "on"
    try:
        return kind(text)
    except ValueError:
        raise OptionError(f"{name} must be {KINDS[kind]}, not {text!r}") from None
