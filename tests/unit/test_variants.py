"""A variant is a value, equal by what it is in whatever order it was made; its label is for people."""

from __future__ import annotations

import dataclasses

import pytest

from harness import plan
from harness.records import PYTORCH, Variant
from tests import synthetic_run as synthetic


@pytest.mark.parametrize(
    ("variant", "label"),
    [
        (Variant("stock"), "stock"),
        (Variant("combined", "12.1"), "combined@12.1"),
        (Variant("combined", "12.1", hot_rows="oracle"), "combined@12.1,oracle"),
        (Variant("rpf", "13.0", {"unroll": 2, "distance": 4}), "rpf@13.0,distance=4,unroll=2"),
        (Variant("peer", PYTORCH, {"path": 2}), "peer,path=2"),
    ],
)
def test_labels(variant: Variant, label: str) -> None:
    assert variant.label == label


def test_the_order_of_tunables_is_none_of_a_variant() -> None:
    one, other = Variant("rpf", "12.1", {"a": 1, "b": 2}), Variant("rpf", "12.1", {"b": 2, "a": 1})
    assert one == other
    assert {one: "found"}[other] == "found"
    assert len({one, dataclasses.replace(one, hot_rows="oracle"), dataclasses.replace(one, tunables={})}) == 3


def test_a_variant_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Variant("stock").design = "other"  # type: ignore[misc]


def test_what_a_sweep_sets_is_no_part_of_a_cells_variant() -> None:
    variant = Variant("rpf_optmt", "12.1", {"distance": 4, "unroll": 2})
    cell = plan.make(synthetic.experiment(arms=(variant,), reference=variant.label)).cells[0]
    assert cell.variant == variant
    swept = dataclasses.replace(cell, swept=("tunables.distance", "workload.batch"))
    assert swept.variant == Variant("rpf_optmt", "12.1", {"unroll": 2})
