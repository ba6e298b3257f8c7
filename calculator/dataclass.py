"""`dataclass(frozen=True)` as the standard library has it, made in a quarter of the time.

The library compiles seven methods of each frozen class while its module is imported: 0.4 ms a
class, and `glm4q calc` imports fifty of them. Here `__init__` alone is compiled, and all classes
share the other methods. benchmarks/calc_start.py measures the start.
"""

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # A type checker sees the library's decorator, which does the same.
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool) -> Callable[[type], type]:
        """Return the decorator of frozen classes; there is no other."""
        if not frozen:
            raise TypeError("calculator.dataclass makes frozen classes only")
        return _make_frozen


def _make_frozen(cls: Any) -> Any:
    frozen = dataclasses.dataclass(eq=False, repr=False)(cls)
    if any(field.kw_only for field in frozen.__dataclass_fields__.values()):
        raise TypeError(f"{cls.__qualname__} has fields by keyword only, which are not compared")
    # attrgetter reads several fields as a tuple, and a single field as its value.
    frozen._values = staticmethod(attrgetter(*frozen.__match_args__))
    for name in SHARED:
        if name not in vars(frozen):
            setattr(frozen, name, vars(_Shared)[name])
    return frozen


class _Shared:
    """The methods that all frozen classes have."""

    _values: Callable[[Any], Any]
    __match_args__: tuple[str, ...]
    """The names of the fields, as `dataclasses` leaves them."""

    def __setattr__(self, name: str, value: object) -> None:
        """Set a field once, as `__init__` does; a cached property writes to `__dict__` itself."""
        if name in self.__dict__:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: Any) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(self._values(self) == self._values(other))

    def __hash__(self) -> int:
        return hash(self._values(self))

    def __repr__(self) -> str:
        fields = (f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__qualname__}({', '.join(fields)})"


SHARED = ("__setattr__", "__delattr__", "__eq__", "__hash__", "__repr__")
