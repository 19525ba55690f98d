"""What the contrastive losses promise beyond the common contracts."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax import functional
from datarax.functional import info_nce, pairwise_multimodal, sigmoid_contrastive

# The errors are those a user sees: without the run-time type checks of conftest.
bare_info_nce, bare_sigmoid, bare_pairwise = (
    inspect.unwrap(f) for f in (info_nce, sigmoid_contrastive, pairwise_multimodal)
)


def embeddings(n=6, d=4, count=2, seed=0):
    return list(jnp.asarray(np.random.default_rng(seed).normal(size=(count, n, d)), jnp.float32))


def losses():
    return {
        "info_nce": lambda a, b, **kw: info_nce(a, b, logit_scale=100.0, **kw),
        "sigmoid": lambda a, b, **kw: sigmoid_contrastive(
            a, b, logit_scale=100.0, logit_bias=-10.0, **kw
        ),
    }


@pytest.mark.parametrize("name", ["info_nce", "sigmoid"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("kind", ["identical", "opposite", "zero", "large"])
def test_scale_100_is_finite(name, dtype, kind):
    a = embeddings()[0].astype(dtype)
    b = {"identical": a, "opposite": -a, "zero": jnp.zeros_like(a), "large": 100 * a}[kind]
    value, gradients = jax.value_and_grad(lambda *x: losses()[name](*x).mean(), (0, 1))(a, b)
    assert value.dtype == jnp.float32
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(g).all() and g.dtype == dtype for g in gradients)


@pytest.mark.parametrize("name", ["info_nce", "sigmoid"])
def test_a_removed_row_is_as_if_it_were_not_in_the_batch(name):
    a, b = embeddings()
    where = jnp.array([True, False, True, True, False, True])
    expected = losses()[name](a[where], b[where])
    np.testing.assert_allclose(losses()[name](a, b, where=where)[where], expected, rtol=1e-5)


def test_half_precision_logits_are_accumulated_in_float32():
    x = functional.safe_l2_normalize(embeddings(d=64)[0]).astype(jnp.bfloat16)
    logits = functional.pairwise_dot_product(x, x)
    assert logits.dtype == jnp.float32
    exact = np.asarray(x, np.float64) @ np.asarray(x, np.float64).T
    np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-6)


def test_different_dtypes_are_widened():
    a, b = embeddings()
    expected = info_nce(a.astype(jnp.bfloat16).astype(jnp.float32), b, logit_scale=3.0)
    got = info_nce(a.astype(jnp.bfloat16), b, logit_scale=3.0)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_info_nce_is_never_negative_and_both_is_the_mean_of_its_directions():
    a, b = embeddings()
    parts = [info_nce(a, b, logit_scale=3.0, directions=d) for d in ("a_to_b", "b_to_a")]
    both = info_nce(a, b, logit_scale=3.0)
    np.testing.assert_allclose(both, (parts[0] + parts[1]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(info_nce(a, b, logit_scale=3.0, logit_bias=7.0) >= 0, True)
    assert not np.allclose(parts[0], parts[1])


def test_the_bias_of_the_softmax_cancels():
    a, b = embeddings()
    slope = jax.grad(lambda c: info_nce(a, b, logit_scale=3.0, logit_bias=c).sum())(2.0)
    np.testing.assert_allclose(slope, 0, atol=1e-5)


def test_ids_make_equal_rows_positives_with_the_minimum_log_of_their_number():
    a = 5 * jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    value = info_nce(a, a, logit_scale=1.0, ids=jnp.array([4, 4, 9]))
    np.testing.assert_allclose(value, [math.log(2), math.log(2), 0], atol=1e-6)
    b = a[jnp.array([0, 2, 1])]
    value = info_nce(a, b, logit_scale=1.0, ids=jnp.array([9, 4, 4]), directions="a_to_b")
    # Logits of row 2 are 0, 25, 0: its positives, rows 1 and 2 of b, have 25 and 0.
    np.testing.assert_allclose(value[2], 12.5, atol=1e-5)


@pytest.mark.parametrize("n", [2, 100, 22027])
def test_sigmoid_bias_init_gives_the_share_of_positives(n):
    bias = functional.sigmoid_bias_init(n)
    assert 1 / (1 + math.exp(-bias)) == pytest.approx(1 / n)


def test_sigmoid_bias_init_needs_two_rows():
    with pytest.raises(ValueError, match="n must be at least 2 for a prior of 1/n, got 1"):
        functional.sigmoid_bias_init(1)


@pytest.mark.parametrize("loss", ["info_nce", "sigmoid"])
@pytest.mark.parametrize("pairs", ["all", "anchor"])
def test_two_modalities_are_the_two_modality_loss(loss, pairs):
    a, b = embeddings()
    value, used = pairwise_multimodal(
        [a, b], logit_scale=100.0, logit_bias=-10.0, loss=loss, pairs=pairs
    )
    np.testing.assert_allclose(value, losses()[loss](a, b), rtol=1e-5, atol=1e-6)
    assert used.all()


def test_a_row_takes_part_only_in_the_pairs_it_has():
    x = embeddings(count=3)
    presence = jnp.array([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0], [1, 0, 1]], bool)
    masks = list(presence.T)
    value, used = pairwise_multimodal(x, logit_scale=2.0, presence=masks)
    np.testing.assert_array_equal(used, [True, False, True, False, True, True])
    assert value[1] == value[3] == 0
    only = info_nce(x[1], x[2], logit_scale=2.0, where=masks[1] & masks[2])
    np.testing.assert_allclose(value[2], only[2], rtol=1e-6)
    _, anchored = pairwise_multimodal(x, logit_scale=2.0, presence=masks, pairs="anchor")
    np.testing.assert_array_equal(anchored, [True, False, False, False, True, True])


@pytest.mark.parametrize(
    ("log_scale", "scale", "down", "up"),
    [(2.0, math.exp(2), True, True), (9.0, 100, True, False), (-1.0, 1, False, True)],
)
def test_clamped_exp_lets_only_inward_gradients_pass_outside(log_scale, scale, down, up):
    def clamped(x):
        return functional.clamped_exp(x, minimum=1.0, maximum=100.0)

    x = jnp.asarray(log_scale, jnp.float32)
    np.testing.assert_allclose(clamped(x), scale, rtol=1e-6)
    # Descent on +s lowers the parameter, on -s it raises it.
    np.testing.assert_allclose(jax.grad(clamped)(x), scale if down else 0, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda y: -clamped(y))(x), -scale if up else 0, rtol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0)])
def test_clamped_exp_refuses_wrong_bounds(low, high):
    with pytest.raises(ValueError, match=f"0 < minimum <= maximum, got {low} and {high}"):
        functional.clamped_exp(jnp.asarray(0.0), minimum=low, maximum=high)


def _bad_inputs():
    a, b = embeddings()
    yes = jnp.ones(6, bool)
    whole = a.astype(jnp.int32)
    return [
        ({"b": b[:5]}, ValueError, r"equal shapes, got a \(6, 4\), b \(5, 4\)"),
        ({"b": b[:, :3]}, ValueError, r"equal shapes, got a \(6, 4\), b \(6, 3\)"),
        ({"a": a[0]}, ValueError, r"a must have shape \[n, d\], got \(4,\)"),
        ({"a": whole}, TypeError, r"a must be floating point, got int32 of shape \(6, 4\)"),
        ({"where": yes[:5]}, ValueError, r"where must have shape \(6,\), got \(5,\)"),
        ({"where": jnp.ones(6)}, TypeError, r"where must be boolean \(True = keep\), got float32"),
        ({"ids": jnp.ones(6)}, TypeError, "ids must be integers, got float32"),
        ({"ids": jnp.ones(5, int)}, ValueError, r"ids must have shape \(6,\), got \(5,\)"),
        ({"logit_scale": jnp.ones(1)}, ValueError, r"logit_scale must be a scalar, got .*\(1,\)"),
        ({"logit_bias": jnp.ones(2)}, ValueError, r"logit_bias must be a scalar, got .*\(2,\)"),
    ]


@pytest.mark.parametrize("loss", [bare_info_nce, bare_sigmoid], ids=["info_nce", "sigmoid"])
@pytest.mark.parametrize("index", range(10))
def test_both_losses_refuse(loss, index):
    changes, error, message = _bad_inputs()[index]
    a, b = embeddings()
    arguments = {"a": a, "b": b, "logit_scale": 1.0, "logit_bias": 0.0} | changes
    with pytest.raises(error, match=message):
        loss(arguments.pop("a"), arguments.pop("b"), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": "a"}, r"directions must be one of \['both', 'a_to_b', 'b_to_a'\], got 'a'"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\), got -0.1"),
    ],
)
def test_info_nce_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        bare_info_nce(*embeddings(), logit_scale=1.0, **options)


@pytest.mark.parametrize(
    ("count", "options", "error", "message"),
    [
        (1, {}, ValueError, "embeddings must hold at least 2 modalities, got 1"),
        (2, {"pairs": "some"}, ValueError, r"pairs must be one of \['all', 'anchor'\], got 'some'"),
        (2, {"loss": "clip"}, ValueError, r"loss must be one of \['info_nce', 'sigmoid'\]"),
        (2, {"loss": "sigmoid"}, ValueError, "loss='sigmoid' needs a logit_bias"),
        (
            2,
            {"loss": "sigmoid", "logit_bias": 0.0, "label_smoothing": 0.1},
            ValueError,
            "takes neither directions nor label_smoothing",
        ),
        (3, {"presence": [jnp.ones(6, bool)] * 2}, ValueError, "presence must hold 3 masks, got 2"),
        (2, {"presence": [jnp.ones(6)] * 2}, TypeError, r"presence\[0\] must be boolean"),
        (2, {"presence": [jnp.ones(5, bool)] * 2}, ValueError, r"presence\[0\] must have shape"),
    ],
)
def test_pairwise_refuses(count, options, error, message):
    with pytest.raises(error, match=message):
        bare_pairwise(embeddings(count=count), logit_scale=1.0, **options)


def test_pairwise_refuses_unequal_modalities():
    a, b = embeddings()
    with pytest.raises(ValueError, match=r"embeddings\[0\] \(6, 4\), embeddings\[1\] \(5, 4\)"):
        bare_pairwise([a, b[:5]], logit_scale=1.0)
