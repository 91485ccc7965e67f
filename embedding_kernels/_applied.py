"""A plan held against the model that it is applied to."""

from __future__ import annotations

from torch import nn

from embedding_kernels._groups import shapes_of, why_not_converted, why_not_values
from embedding_kernels.plan import Choice, Group, Plan


class Applied:
    """Which choice each module gets, and what of a plan does not fit."""

    def __init__(self, plan: Plan | None = None) -> None:
        self._plan = plan
        self._used: list[Group] = []
        self._problems: list[str] = []

    def anew(self) -> Applied:
        """The same plan, of which nothing has been asked."""
        return Applied(self._plan)

    def choice_for(self, module: nn.Module, path: str) -> Choice | None:
        """None: there is no plan, or none for this."""
        if self._plan is None:
            return None
        tensor = next(iter([*module.parameters(), *module.buffers()]))
        where = path or "the model itself"
        if differs := self._plan.differences(tensor.device):
            if differs not in self._problems:
                self._problems.append(differs)
            return None
        shapes = shapes_of(module)
        group = self._plan.group_for(shapes, path)
        if group is None:
            same = next((each for each in self._plan.groups if each.path == path), None)
            here = ", ".join(map(str, shapes))
            tuned = f", and {', '.join(map(str, same.tables))} were tuned there" if same else ""
            self._problems.append(f"{where} has {here}{tuned or ', which the plan does not know'}")
            return None
        self._used.append(group)
        row_type = group.choice.row_type
        if why := why_not_converted(module, row_type) or why_not_values(module, row_type):
            self._problems.append(f"{where} cannot be served by {group.choice}: {why}")
            return None
        return group.choice

    def problems(self) -> list[str]:
        """Parts of sentences, once all modules have asked."""
        if self._plan is None:
            return []
        met = {group.tables for group in self._used}
        missing = [group for group in self._plan.groups if group.tables not in met]
        if self._problems:
            return self._problems
        return [
            f"the model has nothing like {group.path or 'the model tuned'} of the plan" for group in missing
        ]
