"""FBGEMM's description of a model: what is taken over, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import experiment, models
from harness.errors import BadInputError

CONFIG: dict[str, Any] = {
    "T": 3,
    "E": 40,
    "D": 8,
    "mixed_dim": True,
    "weighted": False,
    "batch_params": {"B": 16, "sigma_B": None, "vbe_distribution": "normal", "vbe_num_ranks": None},
    "indices_params": {
        "heavy_hitters": [0.3, 0.1],
        "zipf_q": 2.0,
        "zipf_s": 1.2,
        "index_dtype": "torch.int32",
        "offset_dtype": None,
    },
    "pooling_params": {"L": 5, "sigma_L": 2, "length_distribution": "normal", "Ls": None},
    "use_cpu": False,
    "Es": [100, 100, 20],
    "Ds": [8, 8, 16],
    "max_indices": None,
}


def imported(tmp_path: Path, **changes: Any) -> models.ModelFile:
    (tmp_path / "tbe.json").write_text(json.dumps(CONFIG | changes), encoding="utf-8")
    return models.read(str(tmp_path / "tbe.json"))


def test_fbgemms_description_of_a_model(tmp_path: Path) -> None:
    model = imported(tmp_path)
    assert [(group.count, group.rows, group.dim) for group in model.tables] == [(2, 100, 8), (1, 20, 16)]
    first = model.tables[0]
    assert (first.pooling, first.bags, first.deviation) == (5, "normal", 2)
    assert (first.zipf_s, first.zipf_q, first.hottest) == (1.2, 2, (0.3, 0.1))
    assert (model.batch, model.index_dtype) == (16, "int32")
    assert experiment.of_designs(["stock"], "13.0", model=str(tmp_path / "tbe.json")).datasets == ("own",)


def test_bags_and_laws_of_each_feature(tmp_path: Path) -> None:
    laws: list[dict[str, Any]] = [
        {"heavy_hitters": [], "zipf_q": 1.0, "zipf_s": s, "index_dtype": "torch.int64"} for s in (1, 2, 3)
    ]
    lengths = {"L": 3, "sigma_L": None, "length_distribution": None, "Ls": [1.0, 2.0, 7.0]}
    model = imported(tmp_path, indices_params_list=laws, pooling_params=lengths)
    assert [(group.pooling, group.bags, group.zipf_s) for group in model.tables] == [
        (1, "fixed", 1),
        (2, "fixed", 2),
        (7, "fixed", 3),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"T": 0}, "T: 0 is no whole number from 1 to 10000"),
        ({"Es": [1, 2]}, "Es: is no list of 3 numbers"),
        ({"Es": [1, 2, "x"]}, "Es.2: 'x' is no whole number"),
        ({"Ds": None}, "mixed_dim: dims are drawn at random"),
        ({"batch_params": {"B": 16, "sigma_B": 3}}, "batch_params.sigma_B: a batch that varies"),
        ({"batch_params": {"Bs": [16, 16, 8]}}, "batch_params.Bs: a batch that varies"),
        ({"batch_params": {"B": 16, "Bs": [64] * 3}}, "batch_params.Bs: are 64 each, and B is 16; make them"),
        ({"batch_params": {"Bs": [64] * 3}}, "batch_params.B: None is no whole number"),
        ({"ES": [10, 20, 30]}, "tbe.json: ES: is no field of FBGEMM's. Did you mean 'Es'?"),
        ({"": 1}, "tbe.json: : is no field of FBGEMM's."),
        ({"batch_params": {"B": 16, "sigmaB": 3}}, "batch_params.sigmaB: is no field of FBGEMM's. Did"),
        ({"pooling_params": {"L": 5, "LS": [1, 2, 3]}}, "LS: is no field of FBGEMM's. Did you mean 'Ls'"),
        (
            {"pooling_params": {"L": 5, "sigmaL": 5}},
            "sigmaL: is no field of FBGEMM's. Did you mean",
        ),
        (
            {"indices_params_list": [{"zipf_q": 1, "zipf_s": 1}] * 2 + [{"zipfs": 1}]},
            "indices_params_list.2.zipfs: is no field of FBGEMM's. Did you mean 'zipf_s'?",
        ),
        ({"indices_params": 3}, "indices_params: is no object"),
        ({"indices_params": {"zipf_q": 1}}, "indices_params.zipf_s: None is no number"),
        (
            {"indices_params": {"zipf_q": 1, "zipf_s": 1e9}},
            "indices_params.zipf_s: 1000000000.0 is no number",
        ),
        (
            {"indices_params": {"zipf_q": 1, "zipf_s": 1, "heavy_hitters": [0.9, 0.9]}},
            "indices_params.heavy_hitters: are 1.8 together, more than all lookups",
        ),
        (
            {"Es": [3, 3, 3], "indices_params": {"zipf_q": 1, "zipf_s": 1, "heavy_hitters": [0.1] * 4}},
            "indices_params.heavy_hitters: 4 shares are more than the table's 3 rows.",
        ),
        (
            {"indices_params": {"zipf_q": 1, "zipf_s": 1, "heavy_hitters": [True]}},
            "indices_params.heavy_hitters: is no list of shares",
        ),
        ({"indices_params_list": [1]}, "indices_params_list: is no list of 3"),
        ({"feature_table_map": [0, 0, 1]}, "feature_table_map: features that share a table"),
        ({"weighted": "yes"}, "weighted: 'yes' is neither true nor false"),
        ({"mixed_dim": 1, "Ds": None}, "mixed_dim: 1 is neither true nor false"),
        (
            {"indices_params": {"zipf_q": 1, "zipf_s": 1, "index_dtype": "torch.int8"}},
            "indices_params.index_dtype: 'torch.int8' is neither torch.int32 nor torch.int64",
        ),
        (
            {
                "indices_params_list": [
                    {"zipf_q": 1, "zipf_s": 1, "index_dtype": f"torch.int{bits}"} for bits in (64, 32, 64)
                ]
            },
            "features with row numbers of both types are not measured",
        ),
        ({"embedding_specs": [[5, 8], [5, 8]]}, "embedding_specs: is no list of 3 tables"),
        ({"embedding_specs": [[5, 8], [5], [5, 8]]}, "embedding_specs.1: [5] does not give rows"),
        ({"embedding_specs": [[5, 8], [5, 0], [5, 8]]}, "embedding_specs.1.1: 0 is no whole number"),
        ({"embedding_specs": [[5, 8]] * 3}, "embedding_specs: are other tables than those of Es and Ds"),
        (
            {"pooling_params": {"L": 5, "sigma_L": 1, "length_distribution": "uniform"}},
            "'uniform' is not measured",
        ),
    ],
)
def test_a_description_that_asks_for_something_else(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInputError) as error:
        imported(tmp_path, **changes)
    assert said in str(error.value)


def test_specs_take_the_place_of_means(tmp_path: Path) -> None:
    specs = [[7, 8], [7, 8], [9, 16]]
    for given in ({"Es": None, "Ds": None}, {"Es": [7, 7, 9], "Ds": [8, 8, 16]}):
        model = imported(tmp_path, **given, embedding_specs=specs)
        assert [(group.count, group.rows, group.dim) for group in model.tables] == [(2, 7, 8), (1, 9, 16)]


@pytest.mark.parametrize(
    ("batch_params", "index_dtype"),
    [
        ({"B": 16, "vbe_num_ranks": 4}, "None"),
        ({"B": 16, "sigma_B": None, "Bs": [16.0, 16, 16]}, None),
    ],
)
def test_what_makes_no_difference(tmp_path: Path, batch_params: Any, index_dtype: str | None) -> None:
    """Only a deviation makes batches vary, and FBGEMM writes a type that is not told as a text."""
    indices = CONFIG["indices_params"] | {"index_dtype": index_dtype, "offset_dtype": index_dtype}
    model = imported(tmp_path, batch_params=batch_params, indices_params=indices)
    assert (model.batch, model.index_dtype) == (16, "int64")


@pytest.mark.skipif(importlib.util.find_spec("fbgemm_gpu") is None, reason="needs FBGEMM (`make setup`)")
@pytest.mark.parametrize("dtype", [None, torch.int32])
def test_what_fbgemm_writes_is_read(tmp_path: Path, dtype: torch.dtype | None) -> None:
    """Whatever fields its version has."""
    from fbgemm_gpu.tbe.bench import tbe_data_config as fbgemm

    indices = fbgemm.IndicesParams(torch.tensor([0.3, 0.1]), 2.0, 1.2, dtype, dtype)
    batch, pooling = fbgemm.BatchParams(16, vbe_num_ranks=2), fbgemm.PoolingParams(5, sigma_L=2)
    config = fbgemm.TBEDataConfig(3, 40, 8, False, True, batch, indices, pooling)
    (tmp_path / "tbe.json").write_text(config.json(), encoding="utf-8")
    model = models.read(str(tmp_path / "tbe.json"))
    assert [(group.count, group.rows, group.dim) for group in model.tables] == [(3, 40, 8)]
    assert (model.batch, model.weighted) == (16, True)
    assert model.index_dtype == ("int64" if dtype is None else "int32")


def test_json_that_describes_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(BadInputError, match=r"x\.json: is no TBEDataConfig"):
        models.read(str(tmp_path / "x.json"))
