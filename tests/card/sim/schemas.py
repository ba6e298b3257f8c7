"""What an operator's schema says: what it writes to, and whether it only gives another view."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero,
    aten.unique_dim, aten._unique2, aten.bincount, aten.multinomial, aten.unique_consecutive,
}  # fmt: skip
"""Operators whose result, or the size of it, the host needs."""
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
COPYING = {aten.copy_, aten._to_copy}
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.baddbmm_, aten.addmm_, aten.addbmm}


def writes(func: Any) -> bool:
    arguments = func._schema.arguments
    return any(each.alias_info is not None and each.alias_info.is_write for each in arguments)


def is_composite(func: Any) -> bool:
    """Whether torch makes it of other operators on every device."""
    name = func.name()
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd")


def is_view(func: Any) -> bool:
    return any(each.alias_info is not None for each in func._schema.returns)


def targets(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """What an operator writes to, in the order of its schema."""
    tensors: list[Tensor] = []
    for place, each in enumerate(func._schema.arguments):
        if each.alias_info is not None and each.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(each.name)
            tensors += [value] if isinstance(value, Tensor) else list(value or [])
    return tensors


def written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What an operator that writes returns: the tensors that it writes to."""
    tensors = targets(func, args, kwargs)
    returns = len(func._schema.returns)
    if returns == 0:
        return None
    return tensors[0] if returns == 1 else tuple(tensors[:returns])
