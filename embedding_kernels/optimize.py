"""`optimize`: `EmbeddingTables` in the place of a model's embedding bags."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from embedding_kernels._applied import Applied
from embedding_kernels._groups import apply
from embedding_kernels._memory import now_views
from embedding_kernels._refusals import (
    TABLE_BATCHED,
    has_hooks,
    unknown,
    why_not_bags,
    why_not_on,
    why_not_plain,
)
from embedding_kernels._stand_ins import OneTable, TablesByName
from embedding_kernels.plan import Plan, PlanError
from embedding_kernels.tables import EmbeddingTables, Kernel, OnBadIndex, kernels_of, require_known

Kernels = Kernel | Mapping[str, Kernel | Sequence[Kernel]]
_REPORT = "_embedding_kernels_report"
_LOG = logging.getLogger("embedding_kernels")


class UnsupportedError(ValueError):
    """Something that `optimize(strict=True)` would have had to leave as it was."""


@dataclass(frozen=True)
class Swap:
    """What `optimize` did with one module."""

    path: str
    """Within the model; empty: the model itself."""
    kind: str
    """What stood there."""
    tables: int
    why_not: str
    """Why it was left as it is; empty: it was swapped."""
    choice: str = ""
    """What a plan chose for it, for example "fused, float16 rows"; "own": that it be left. Empty: no plan."""

    def __str__(self) -> str:
        """One line."""
        where = self.path or "the model itself"
        if self.why_not:
            return f"{where} ({self.kind}): left as it is, since {self.why_not}"
        planned = f" as the plan says, {self.choice}" if self.choice else ""
        return f"{where} ({self.kind}): {self.tables} table{'s' * (self.tables != 1)} swapped{planned}"


@dataclass(frozen=True)
class Swappable:
    """A module that `optimize` swaps."""

    path: str
    module: nn.Module
    make: Callable[[], EmbeddingTables]
    """What takes its place. Its weights move there."""


@dataclass
class _Walk:
    on_bad_index: OnBadIndex
    kernel: Kernels = "fused"
    applied: Applied = field(default_factory=Applied)
    swaps: list[Swap] = field(default_factory=list)
    swappable: list[Swappable] = field(default_factory=list)
    seen: dict[int, nn.Module] = field(default_factory=dict)
    """By what stood there: modules that are in several places stay one."""
    owners: dict[int, str] = field(default_factory=dict)
    """By a weight, which module holds it now."""
    held: list[Any] = field(default_factory=list)
    """Keeps what `seen` and `owners` are by alive."""


def optimize(
    model: Any,
    *,
    on_bad_index: OnBadIndex = "count",
    kernel: Kernels = "fused",
    strict: bool = False,
    plan: Plan | str | os.PathLike[str] | None = None,
) -> Any:
    """The model, with `EmbeddingTables` in the place of its embedding bags, for inference.

    Swapped are `nn.EmbeddingBag`, `nn.ModuleList` and `nn.ModuleDict` of them, TorchRec's
    `EmbeddingBagCollection` and its quantised form, and FBGEMM's table-batched modules, which are then one
    launch. A list stays a list: its
    tables are called one by one, or all at once as `model.bags(indices, offsets)`. Where some of its bags
    cannot be swapped, the others are, one by one. Outputs and the keys of `state_dict` stay as they were.
    Weights are moved into one allocation, of which the parameters that were there become views; while that
    happens, each module's tables are held twice. The model is changed in place; given a list or dict of
    bags, or a module that is swapped itself, what takes its place is returned.

    `on_bad_index`: see `EmbeddingTables`. `kernel`: see `EmbeddingTables.use_kernel`; of all tables, or by
    the path of a module that is swapped, others then being "fused"; ValueError where it does not fit.
    `strict`: UnsupportedError, before anything is changed, where something would have to be left as it is.
    `report(model)` says what was done.

    `plan`, in the place of `kernel`: what `tune` found, or the path of its plan.json (PlanError where that is
    none). A plan may leave a module its own lookup, or convert rows to another type, if `tune` was allowed
    to. Where GPU or tables are others than those tuned, `strict` raises PlanError, before anything is
    changed; otherwise a warning is logged, and what the plan does not know is served as without one.
    """
    require_known(on_bad_index)
    if plan is not None and kernel != "fused":
        raise ValueError("A plan says which kernels look up; give optimize either a plan or a kernel.")
    if plan is not None and not isinstance(plan, Plan):
        if not isinstance(plan, str | os.PathLike):
            raise TypeError(f"plan: is a Plan or the path of a plan.json, not a {type(plan).__name__}.")
        plan = Plan.load(plan)
    for number, group in enumerate(plan.groups if plan is not None else ()):
        if problem := group.choice.problem():
            raise PlanError(f"plan: groups[{number}].choice.{problem}.")
    walk = _Walk(on_bad_index, kernel, Applied(plan))
    if isinstance(model, nn.Module):
        return _swapped(model, walk, strict)
    bags = as_modules(model)
    if not (found := _bags_of(bags)):
        raise UnsupportedError("A list or dict for optimize holds embedding bags and nothing else.")
    if why := _why_not_together(bags, found, walk.owners):
        raise UnsupportedError(f"These bags cannot be looked up together: {why}.")
    return _swapped(bags, walk, strict)


def report(model: nn.Module) -> list[Swap]:
    """What `optimize` did with this model, module by module; empty where it never came here. TypeError for
    what is no model."""
    if not isinstance(cast(object, model), nn.Module):
        raise TypeError(f"report takes a model that was optimised, not a {type(model).__name__}.")
    told: dict[str, Swap] = {}
    for path, module in model.named_modules():
        for swap in vars(module).get(_REPORT, ()):  # of parts that were optimised by themselves, too
            where = ".".join(filter(None, (path, swap.path)))
            told.setdefault(where, replace(swap, path=where))
    return list(told.values())


def swappable(model: nn.Module) -> list[Swappable]:
    """What `optimize` would swap."""
    walk = _Walk("count")
    _visit(model, "", walk, change=False)
    return walk.swappable


def _swapped(model: nn.Module, walk: _Walk, strict: bool) -> nn.Module:
    trial = _Walk(walk.on_bad_index, walk.kernel, walk.applied.anew())
    _visit(model, "", trial, change=False)
    if strict and (left := [swap for swap in trial.swaps if swap.why_not and not swap.choice]):
        raise UnsupportedError("; ".join(map(str, left)))
    problems = trial.applied.problems()
    if strict and problems:
        raise PlanError(f"The plan is not of this model and GPU: {'; '.join(problems)}.")
    _check_kernels(walk.kernel, trial.swaps)
    for problem in problems:
        _LOG.warning("Served as without a plan, since %s.", problem)
    result, before = model, report(model)
    try:
        result = _visit(model, "", walk, change=True)
    finally:  # where memory ends midway, what was swapped is told all the same
        now = dict(result.named_modules())
        told = {swap.path for swap in walk.swaps}
        before = [swap for swap in before if swap.path not in told]
        still = [swap for swap in before if isinstance(now.get(swap.path), EmbeddingTables)]
        setattr(result, _REPORT, [*still, *walk.swaps])
    for swap in walk.swaps:
        _LOG.log(logging.WARNING if swap.why_not else logging.INFO, "%s", swap)
    return result


def _check_kernels(asked: Kernels, swaps: Sequence[Swap]) -> None:
    by_path = {swap.path: swap.tables for swap in swaps if not swap.why_not}
    if isinstance(asked, str):
        kernels_of(1, asked)
        return
    if not isinstance(asked, Mapping):
        raise TypeError(f"kernel: is a name, or a dict of them by where a module is; got {asked!r}.")
    for path, kernel in asked.items():
        if path not in by_path:
            raise ValueError(f"kernel: nothing is swapped at {path!r}; swapped are {list(by_path)}.")
        kernels_of(by_path[path], kernel)


def as_modules(bags: Any) -> nn.Module:
    """A list or dict of bags as a module; TypeError for anything else."""
    listed = bags.values() if isinstance(bags, Mapping) else bags
    if isinstance(listed, Iterable) and (others := [bag for bag in listed if not isinstance(bag, nn.Module)]):
        raise TypeError(
            f"A list or dict for optimize holds embedding bags, not a {type(others[0]).__name__}."
        )
    if isinstance(bags, Mapping):
        if len({str(name) for name in bags}) < len(bags):
            raise ValueError(f"Two of these bags have one name as a text: {list(bags)}.")
        try:
            return nn.ModuleDict({str(name): bag for name, bag in bags.items()})
        except KeyError as error:
            raise ValueError(f"The bags' names are no names of modules: {error.args[0]}.") from error
    if isinstance(bags, Sequence) and not isinstance(bags, str):
        return nn.ModuleList(bags)
    raise TypeError(
        f"optimize takes a model, or a list or dict of embedding bags; got {type(bags).__name__}."
    )


def _visit(module: nn.Module, path: str, walk: _Walk, *, change: bool) -> nn.Module:
    """What is to stand in the module's place, which may be itself, its children then visited."""
    if id(module) in walk.seen:
        return walk.seen[id(module)]
    walk.held.append(module)
    result = module
    bags = _bags_of(module)
    make, collection_bags = _of_torchrec(module)
    if make is not None:
        result = _try(module, path, collection_bags, walk, make, change=change)
    elif _is_quantised_collection(module):
        result = _try_quantised(module, path, walk, change=change)
    elif _is_table_batched(module):
        result = _try_table_batched(module, path, walk, change=change)
    elif isinstance(module, nn.EmbeddingBag):
        result = _try(module, path, {"": module}, walk, _one_table, change=change)
    elif bags and not _why_not_together(module, bags, walk.owners):
        result = _try(module, path, bags, walk, _many_tables, change=change)
    elif (why := unknown(module)) and not isinstance(module, EmbeddingTables):
        walk.swaps.append(Swap(path, type(module).__name__, 0, why))
    else:
        for name, child in list(module.named_children()):
            new = _visit(child, f"{path}.{name}" if path else name, walk, change=change)
            if new is not child:
                _put(module, name, new)
        _visit_plain(module, path, walk)
    walk.seen[id(module)] = result
    return result


def _put(module: nn.Module, name: str, new: nn.Module) -> None:
    """Under every name that the child has here; `named_children` tells but the first."""
    old = module._modules[name]
    for key, child in list(module._modules.items()):
        if child is old:
            module._modules[key] = new


def _visit_plain(module: nn.Module, path: str, walk: _Walk) -> None:
    """Bags in plain lists, which are no children, are not seen by `.to()` either."""
    for name, value in vars(module).items():
        if name == "_modules":
            continue
        inside = value.values() if isinstance(value, dict) else value
        if isinstance(value, (list, tuple, dict)) and any(isinstance(bag, nn.EmbeddingBag) for bag in inside):
            why = "it is no nn.ModuleList or nn.ModuleDict, so PyTorch does not know its modules either"
            walk.swaps.append(Swap(f"{path}.{name}" if path else name, type(value).__name__, len(value), why))


Make = Callable[[nn.Module, dict[str, nn.EmbeddingBag], OnBadIndex], EmbeddingTables]


def _try(
    module: nn.Module,
    path: str,
    bags: dict[str, nn.EmbeddingBag],
    walk: _Walk,
    make: Make,
    *,
    change: bool,
) -> nn.Module:
    why = why_not_bags(module, bags, walk.owners)
    if not why:
        for bag in bags.values():
            walk.owners[id(bag.weight)] = path
    found = Swappable(path, module, partial(make, module, bags, walk.on_bad_index))
    return _put_in_place(found, type(module).__name__, len(bags), why, walk, change=change)


def _put_in_place(
    found: Swappable, kind: str, tables: int, why: str, walk: _Walk, *, change: bool
) -> nn.Module:
    """What is to stand in the module's place, by the plan if there is one. `why` it cannot be swapped."""
    choice = None
    if not why:
        walk.swappable.append(found)
        choice = walk.applied.choice_for(found.module, found.path)
    if choice is not None and choice.kernel == "own":
        why = "its own lookup is the fastest by the plan"
    swap = Swap(found.path, kind, tables, why, str(choice or ""))
    if why or not change:
        walk.swaps.append(swap)
        return found.module
    new = found.make()
    walk.swaps.append(swap)
    now_views(found.module.parameters(), new)
    chosen = walk.kernel if isinstance(walk.kernel, str) else walk.kernel.get(found.path, "fused")
    if choice is not None:
        apply(new, choice)
    elif chosen != "fused":
        new.use_kernel(chosen)
    return new.train(found.module.training)


def _is_quantised_collection(module: nn.Module) -> bool:
    modules = sys.modules.get("torchrec.quant.embedding_modules")
    return modules is not None and type(module) is modules.EmbeddingBagCollection


def _try_quantised(collection: Any, path: str, walk: _Walk, *, change: bool) -> nn.Module:
    from embedding_kernels.torchrec import QuantisedCollection, why_not_quantised

    why = why_not_quantised(collection) or _why_not_whole(collection, collection.device)
    tables = len(collection.embedding_bag_configs())
    found = Swappable(path, collection, partial(QuantisedCollection, collection, walk.on_bad_index))
    return _put_in_place(found, "quantised EmbeddingBagCollection", tables, why, walk, change=change)


def _is_table_batched(module: nn.Module) -> bool:
    return type(module).__module__.startswith("fbgemm_gpu.") and type(module).__name__ in TABLE_BATCHED


def _try_table_batched(module: Any, path: str, walk: _Walk, *, change: bool) -> nn.Module:
    from embedding_kernels.fbgemm import TableBatched, why_not

    why = why_not(module) or _why_not_whole(module, module.current_device)
    found = Swappable(path, module, partial(TableBatched, module, walk.on_bad_index))
    kind, tables = type(module).__name__, len(module.embedding_specs)
    return _put_in_place(found, kind, tables, why, walk, change=change)


def _why_not_whole(module: nn.Module, device: torch.device) -> str:
    if has_hooks(module):
        return "it has forward hooks, which would not be called"
    return why_not_plain(module) or why_not_on(device)


def _one_table(
    module: nn.Module, bags: dict[str, nn.EmbeddingBag], on_bad_index: OnBadIndex
) -> EmbeddingTables:
    return OneTable(bags[""], on_bad_index=on_bad_index)


def _many_tables(
    module: nn.Module, bags: dict[str, nn.EmbeddingBag], on_bad_index: OnBadIndex
) -> EmbeddingTables:
    kind = TablesByName if isinstance(module, nn.ModuleDict) else EmbeddingTables
    return kind(list(bags.values()), names=list(bags), on_bad_index=on_bad_index)


def _why_not_together(
    module: nn.Module, bags: Mapping[str, nn.EmbeddingBag], owners: Mapping[int, str]
) -> str:
    """Of a list or dict; where it is a dict, a name may be one that `EmbeddingTables` need."""
    if isinstance(module, nn.ModuleDict) and (taken := next(filter(_is_taken, bags), "")):
        return f"a table called {taken} would hide what EmbeddingTables have under that name"
    return why_not_bags(module, bags, owners)


def _is_taken(name: str) -> bool:
    return hasattr(TablesByName, name) or any(
        name in vars(c).get("__annotations__", ()) for c in TablesByName.__mro__
    )


def _bags_of(module: nn.Module) -> dict[str, nn.EmbeddingBag]:
    """Those of a list or dict that holds nothing else. One of a class of its own may be asked more than what
    takes its place answers."""
    own_class = type(module) not in (nn.ModuleList, nn.ModuleDict)
    if own_class or not isinstance(module, nn.ModuleList | nn.ModuleDict):
        return {}
    found = {name: child for name, child in module._modules.items() if isinstance(child, nn.EmbeddingBag)}
    return found if len(found) == len(module) else {}


def _of_torchrec(module: nn.Module) -> tuple[Make | None, dict[str, nn.EmbeddingBag]]:
    """How to take over a collection of TorchRec's, and its bags; TorchRec is not imported where it is not
    used."""
    modules = sys.modules.get("torchrec.modules.embedding_modules")
    if modules is None or type(module) is not modules.EmbeddingBagCollection:
        return None, {}
    from embedding_kernels.torchrec import take_over

    return take_over, dict(cast(Any, module).embedding_bags.items())
