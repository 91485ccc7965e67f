"""Why a module is left as it is by `optimize`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from inspect import getattr_static
from typing import Any

import torch
from torch import Tensor, nn

from embedding_kernels._memory import ROW_TYPE_OF, is_held
from embedding_kernels.device import check

TABLE_BATCHED = ("IntNBitTableBatchedEmbeddingBagsCodegen", "SplitTableBatchedEmbeddingBagsCodegen")
"""Of FBGEMM's modules those that are taken over: for inference, for training."""
_STATE_HOOKS = (
    *("_state_dict_hooks", "_state_dict_pre_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)
_HARMLESS = ("__init__", "_get_name", "extra_repr", "reset_parameters", "from_pretrained")
"""What a class may do otherwise than nn.EmbeddingBag, though what takes its place does not."""
_SPECIAL = ("__getattr__", "__setattr__", "__delattr__", "__getstate__", "__setstate__", "__reduce_ex__")
"""Of Python's own methods those that may not."""
_OF_COLLECTIONS = ("embedding_bags", "_kjt_to_jt_dict")
"""Modules within TorchRec's."""


def unknown(module: nn.Module) -> str:
    """Why a module that looks up embeddings is left alone; empty where it looks up none."""
    package = type(module).__module__.partition(".")[0]
    name = type(module).__name__
    if package == "fbgemm_gpu" and ("Embedding" in name or "TBE" in name):
        return f"of FBGEMM's modules {' and '.join(TABLE_BATCHED)} are taken over, not {name}"
    if package == "torchrec" and "Collection" in name:
        return f"of TorchRec's collections EmbeddingBagCollection alone is taken over, not {name}"
    return ""


def why_not_bags(module: nn.Module, bags: Mapping[str, nn.EmbeddingBag], owners: Mapping[int, str]) -> str:
    """Of bags that are to be looked up together. `owners`: by a weight's id, where it is swapped already."""
    if why := next(filter(None, map(_why_not_hooked, (module, *bags.values()))), ""):
        return why
    if not isinstance(module, nn.EmbeddingBag):
        if why := why_not_plain(module):
            return why
        if own := [*module._parameters, *module._buffers]:
            return f"it has {own[0]} beside its tables, which would be lost"
    devices = {bag.weight.device for bag in bags.values()}
    if len(devices) > 1:
        return f"its tables lie on {len(devices)} devices"
    for name, bag in bags.items():
        if why := why_not_bag(bag, owners):
            return f"{f'table {name}: ' if name else ''}{why}"
    return why_not_on(devices.pop())


def why_not_plain(module: nn.Module) -> str:
    """What somebody gave a list, dict or collection beside its tables."""
    if "forward" in vars(module):
        return f"this {type(module).__name__} was given a forward of its own"
    if _has_state_hooks(module):
        return "it has hooks of its state_dict, which would be lost"
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        more = _attribute_beside(module, nn.Module())
    else:
        more = next((name for name in module._modules if name not in _OF_COLLECTIONS), "")
    return f"it has {more} beside its tables, which would be lost" if more else ""


def why_not_on(device: torch.device) -> str:
    """Why tables there cannot be looked up."""
    if device.type == "meta":
        return ""
    return "" if (ready := check(device)) else ready.why_not.rstrip(".")


def why_not_looked_up(bag: nn.EmbeddingBag) -> str:
    """What a bag does in a lookup and `EmbeddingTables` do not; empty where it does nothing else."""
    if why := _why_not_hooked(bag):
        return why
    if bag.padding_idx is not None:
        return "it has a padding_idx, which embedding_kernels has not"
    if bag.max_norm is not None:
        return "it has a max_norm, which changes weights while looking up"
    forward: Any = bag.forward
    of_the_bag = getattr(forward, "__func__", None) is nn.EmbeddingBag.forward and forward.__self__ is bag
    if not of_the_bag or type(bag).__call__ is not nn.EmbeddingBag.__call__:
        return f"{type(bag).__name__} has a forward of its own"
    return ""


def why_not_bag(bag: nn.EmbeddingBag, owners: Mapping[int, str]) -> str:
    """Of one whose place `EmbeddingTables` are to take."""
    if why := why_not_looked_up(bag):
        return why
    weight: Tensor = bag.weight
    if type(weight) is not nn.Parameter:
        return f"its weight is a {type(weight).__name__} and no plain parameter"
    if besides := [*(name for name in bag._parameters if name != "weight"), *bag._buffers, *bag._modules]:
        return f"it has {besides[0]} beside its weight, which would be lost"
    methods = sorted(set(dir(type(bag))).difference(dir(nn.EmbeddingBag)))
    if public := [name for name in methods if name[0] != "_"]:
        return f"{type(bag).__name__} has more than nn.EmbeddingBag: {public[0]}"
    for name in dir(nn.EmbeddingBag):
        if (name[:2] == "__" and name not in _SPECIAL) or name in _HARMLESS:
            continue
        if getattr_static(type(bag), name) is not getattr_static(nn.EmbeddingBag, name):
            return f"{type(bag).__name__} has a {name} of its own"
    if _has_state_hooks(bag):
        return "it has hooks of its state_dict beside its weight, which would be lost"
    if more := _attribute_beside(bag, _plain_bag()):
        return f"it has {more} beside its weight, which would be lost"
    if weight.size(1) == 0:
        return "it has no columns"
    if weight.dtype not in ROW_TYPE_OF:
        return f"its rows are {str(weight.dtype).removeprefix('torch.')}, not float32, float16 or bfloat16"
    if id(weight) in owners:
        return f"it shares its weight with {owners[id(weight)] or 'the model itself'}"
    if is_held(weight):
        return "it shares its weight with tables that were made of it before"
    return ""


def has_hooks(module: nn.Module) -> bool:
    """Whether something is called beside its forward."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _why_not_hooked(module: nn.Module) -> str:
    return (
        f"its {type(module).__name__} has forward hooks, which would not be called"
        if has_hooks(module)
        else ""
    )


def _has_state_hooks(module: nn.Module) -> bool:
    return any(getattr(module, hooks) for hooks in _STATE_HOOKS)


def _attribute_beside(module: nn.Module, plain: nn.Module) -> str:
    """What somebody gave a module that a plain one has not; empty where nobody did."""
    # Who wrapped a forward and took that back leaves it in the instance; whose it is has been asked.
    usual = {*vars(plain), "forward"}
    return next((name for name in vars(module) if name[0] != "_" and name not in usual), "")


@functools.cache
def _plain_bag() -> nn.EmbeddingBag:
    # Its weight is given, for making one draws random numbers, and on meta imports torch.compile.
    return nn.EmbeddingBag(1, 1, _weight=torch.zeros(1, 1))
