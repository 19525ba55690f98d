"""Rows on several devices: the numbers of one device, and what moves between devices."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from datarax.functional import info_nce, sigmoid_contrastive

WORKER = Path(__file__).with_name("mesh_worker.py")
MASKS = ["where", "where_a", "where_b"]
EXTRA = 6  # columns, as the worker makes them
QUEUE = ["negatives_a", "negatives_b", "negatives_where", "negatives_ids"]
VARIANTS = {
    "info_nce": {"loss": "info_nce", "arrays": ["where"], "uniform": True},
    "unpaired": {"loss": "info_nce", "arrays": MASKS, "settings": {"label_smoothing": 0.1}},
    "ids": {"loss": "info_nce", "arrays": ["where", "ids"], "settings": {"label_smoothing": 0.1}},
    "decoupled": {"loss": "info_nce", "arrays": ["where"], "settings": {"decoupled": True}},
    "one way": {
        "loss": "info_nce",
        "arrays": ["where"],
        "settings": {"directions": "a_to_b"},
        "uniform": True,
    },
    "unpaired one way": {
        "loss": "info_nce",
        "arrays": [*MASKS, "ids"],
        "settings": {"label_smoothing": 0.1, "directions": "b_to_a"},
        "uniform": True,
    },
    "weighted one way": {
        "loss": "info_nce",
        "arrays": ["where"],
        "settings": {"decoupled": True, "directions": "b_to_a"},
    },
    "queue one way": {
        "loss": "info_nce",
        "arrays": ["where", "ids", "negatives_b", "negatives_where", "negatives_ids"],
        "settings": {"label_smoothing": 0.1, "directions": "a_to_b"},
        "uniform": True,
    },
    "queue without ids": {
        "loss": "info_nce",
        "arrays": ["where", "ids", "negatives_a"],
        "settings": {"decoupled": True, "directions": "b_to_a"},
    },
    "queue": {
        "loss": "info_nce",
        "arrays": ["where", "ids", *QUEUE],
        "settings": {"label_smoothing": 0.1},
    },
    "decoupled queue": {
        "loss": "info_nce",
        "arrays": ["where", "ids", "negatives_b", "negatives_where", "negatives_ids"],
        "settings": {"decoupled": True, "directions": "a_to_b"},
    },
    "one row": {"loss": "info_nce", "arrays": ["where"], "kept": 1},
    "one row with ids": {"loss": "info_nce", "arrays": ["where", "ids"], "kept": 1},
    "sigmoid": {"loss": "sigmoid", "arrays": ["where"], "uniform": True},
    "uneven sigmoid": {"loss": "sigmoid", "arrays": ["where", "ids"], "bias": "relative_bias"},
    "targets": {"loss": "sigmoid", "arrays": ["where", "targets"]},
}
SECOND = {
    f"{name}, {form}": {
        "loss": name.replace("one way", "info_nce"),
        "uniform": True,
        "second": True,
        "settings": options,
    }
    | {"how": "auto", "devices": 2, "rows": 8, "over": {"collective": form, "tile": 2}}
    for name, form, options in (
        ("info_nce", "gather", {}),
        ("info_nce", "ring", {}),
        ("one way", "gather", {"directions": "a_to_b"}),
        ("one way", "ring", {"directions": "b_to_a"}),
        ("sigmoid", "gather", {}),
        ("sigmoid", "ring", {}),
    )
}
ALONE = ("info_nce", "sigmoid", "ids", "unpaired")  # each device with its own negatives only


def case(variant, how, form, *, devices, rows):
    over = {"collective": form, "tile": None if variant == "targets" else 2}
    return {**VARIANTS[variant], "how": how, "devices": devices, "rows": rows, "over": over}


# What the gate runs: each variant, way and form, and an uneven batch, once or twice.
FEW = {
    "info_nce, auto, ring, 4": case("info_nce", "auto", "ring", devices=4, rows=16),
    "info_nce, shard_map, gather, 4": case("info_nce", "shard_map", "gather", devices=4, rows=16),
    "unpaired, explicit, gather, 2": case("unpaired", "explicit", "gather", devices=2, rows=16),
    "queue, shard_map, ring, 2": case("queue", "shard_map", "ring", devices=2, rows=16),
    "one way, auto, gather, 4": case("one way", "auto", "gather", devices=4, rows=16),
    "one way, explicit, ring, 4": case("one way", "explicit", "ring", devices=4, rows=16),
    "unpaired one way, auto, gather, uneven": case(
        "unpaired one way", "auto", "gather", devices=4, rows=13
    ),
    "weighted one way, shard_map, gather, 2": case(
        "weighted one way", "shard_map", "gather", devices=2, rows=16
    ),
    "queue one way, shard_map, gather, 4": case(
        "queue one way", "shard_map", "gather", devices=4, rows=16
    ),
    "queue without ids, auto, ring, 2": case(
        "queue without ids", "auto", "ring", devices=2, rows=16
    ),
    "sigmoid, explicit, ring, 4": case("sigmoid", "explicit", "ring", devices=4, rows=16),
    "uneven sigmoid, auto, ring, uneven": case(
        "uneven sigmoid", "auto", "ring", devices=2, rows=13
    ),
    "one row": case("one row", "auto", "gather", devices=2, rows=4),
    "one row with ids": case("one row with ids", "auto", "ring", devices=2, rows=4),
    "info_nce, shard_map alone": case("info_nce", "shard_map alone", None, devices=2, rows=8),
}
EVERY = [
    *((way, form, 8, 24) for way in ("auto", "shard_map") for form in ("gather", "ring")),
    *((way, "ring", 8, 24) for way in ("explicit", "two axes", "shard_map unchecked")),
    *(("auto", form, 2, 13) for form in ("gather", "ring")),
    ("explicit", "gather", 1, 16),
]
ALL = {
    f"{variant}, {how}, {form}, {devices}, {rows}": case(
        variant, how, form, devices=devices, rows=rows
    )
    for variant, (how, form, devices, rows) in itertools.product(VARIANTS, EVERY)
} | {
    f"{variant}, alone": case(variant, "shard_map alone", None, devices=4, rows=24)
    for variant in ALONE
}


def outcomes(cases, folder):
    """What a process with 8 devices finds of each case, by name."""
    given, out = folder / "cases.json", folder / "out.json"
    given.write_text(json.dumps(list(cases.values())))
    done = subprocess.run(
        [sys.executable, WORKER, given, out],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(cases, json.loads(out.read_text()), strict=True))


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return outcomes(FEW | SECOND, tmp_path_factory.mktemp("mesh"))


@pytest.mark.xdist_group("mesh losses")
@pytest.mark.parametrize("name", FEW)
def test_losses_and_gradients_are_those_of_one_device(few, name):
    assert max(few[name]["errors"]) < 1e-6, few[name]["errors"]


@pytest.mark.xdist_group("mesh losses")
@pytest.mark.parametrize("name", SECOND)
def test_a_gradient_has_the_derivatives_of_one_device_in_rows_scale_and_weights(few, name):
    assert max(few[name]["errors"]) < 3e-6, few[name]["errors"]


@pytest.mark.xdist_group("mesh losses")
@pytest.mark.parametrize("name", ["one row", "one row with ids"])
def test_a_row_without_negatives_has_no_gradient_at_all(few, name):
    # Nor noise: what is left of a pair that matches is small beside the weights of its logit.
    assert few[name]["errors"] == [0] * len(few[name]["errors"])


@pytest.mark.xdist_group("mesh losses")
@pytest.mark.parametrize(
    ("name", "units", "kinds"),
    [
        ("info_nce, auto, ring, 4", 3, ["collective-permute"]),
        ("info_nce, shard_map, gather, 4", 2, ["all-gather", "reduce-scatter"]),
        ("one way, explicit, ring, 4", 3, ["collective-permute"]),
        ("one way, auto, gather, 4", 2, ["all-gather", "reduce-scatter"]),
        ("queue one way, shard_map, gather, 4", 2, ["all-gather", "reduce-scatter"]),
    ],
)
def test_nothing_moves_but_what_must(few, name, units, kinds):
    assert few[name]["units"] == pytest.approx(units)
    assert few[name]["kinds"] == kinds


@pytest.mark.xdist_group("mesh losses")
def test_the_sigmoid_ring_moves_columns_and_their_gradient_once(few):
    found = few["sigmoid, explicit, ring, 4"]
    assert found["kinds"] == ["collective-permute"]
    assert found["units"] == pytest.approx(2)
    # For uneven cotangents, which a mean does not have, the gradient is formed again in a branch.
    assert found["units with a branch"] == pytest.approx(4)


@pytest.mark.xdist_group("mesh losses")
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("info_nce, auto, ring, 4", 4),
        ("info_nce, shard_map, gather, 4", 4),
        # 3 as on one device, and 2 in the branch for uneven cotangents; the ring has no branch.
        ("one way, auto, gather, 4", 3 + 2),
        ("queue one way, shard_map, gather, 4", (3 + 2) * (16 + EXTRA) / 16),
        ("one way, explicit, ring, 4", 4),
    ],
)
def test_a_device_does_its_share_of_the_products(few, name, share):
    assert few[name]["share"] == pytest.approx(share)


@pytest.mark.parametrize("loss", [info_nce, sigmoid_contrastive])
def test_an_axis_that_no_mesh_has_is_refused(loss):
    rows = jnp.ones((4, 2))
    with pytest.raises(ValueError, match=r"axis_name must name an axis .* got 'data'"):
        loss(rows, rows, logit_scale=1.0, logit_bias=0.0, axis_name="data")


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_all_variants_over_all_devices(tmp_path):
    found = outcomes(ALL, tmp_path)
    wrong = {n: x["errors"] for n, x in found.items() if max(x["errors"]) >= 1e-6}
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("call", ["info_nce(", "auto_axes("])
def test_the_examples_of_the_documentation_run(call):
    page = (Path(__file__).parents[2] / "docs/scaling.md").read_text()
    examples = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    example = next(x for x in examples if call in x)
    subprocess.run([sys.executable, "-c", example], check=True, timeout=200)
