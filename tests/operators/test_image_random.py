"""Random changes of pictures: their numbers by hand, the statistics of the draws, evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from image_oracles import resampled, torchvision_box
from PIL import Image, ImageEnhance

from datarax import functional
from datarax.core import Batch
from datarax.functional.image import central_box, resized_crop_box
from datarax.operators import (
    ColorJitter,
    ColorJitterConfig,
    Normalize,
    NormalizeConfig,
    RandomCrop,
    RandomCropConfig,
    RandomFlip,
    RandomFlipConfig,
    RandomResizedCrop,
    RandomResizedCropConfig,
)

RANDOM = {"stochastic": True, "stream_name": "noise"}
FIELD = {"input_fields": ["image"], "output_fields": ["image"]}


def operator(kind, config, **options):
    return kind(config(**FIELD, **options, **RANDOM), rngs=nnx.Rngs(0, noise=1))


def crop(**options):
    return operator(RandomCrop, RandomCropConfig, **options)


def resized(**options):
    return operator(RandomResizedCrop, RandomResizedCropConfig, **options)


def flip(**options):
    return operator(RandomFlip, RandomFlipConfig, **options)


def jitter(**options):
    return operator(ColorJitter, ColorJitterConfig, **options)


def draws(op, shape, rows=4000):
    picture = jnp.broadcast_to(jnp.zeros((), jnp.uint8), (rows, *shape))
    index = jnp.arange(rows, dtype=jnp.uint32)
    return jax.tree.map(
        np.asarray, op.draw(Batch.from_parts({"image": picture}, record_index=index))
    )


def by_hand(op, image, params):
    data, _, _ = op.apply({"image": jnp.asarray(image)}, {}, None, params)
    return np.asarray(data["image"])


def picture(shape=(6, 8, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_crop_places_are_uniform():
    offsets = draws(crop(size=(4, 5), padding=1), (6, 8, 3))
    counts = np.zeros((5, 6))
    np.add.at(counts, tuple(offsets.T), 1)
    assert counts.sum() == 4000  # every place is inside
    np.testing.assert_allclose(counts / 4000, 1 / 30, atol=0.012)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_crop_by_hand(mode):
    image = picture()
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)], mode=mode)
    op = crop(size=(4, 5), padding=2, padding_mode=mode)
    for top, left in [(0, 0), (3, 1), (6, 7)]:
        out = by_hand(op, image, jnp.array([top, left], jnp.int32))
        np.testing.assert_array_equal(out, padded[top : top + 4, left : left + 5])
        grey = by_hand(op, image[..., 0], jnp.array([top, left], jnp.int32))
        np.testing.assert_array_equal(grey, out[..., 0])


def test_crop_in_evaluation_is_the_centre():
    op = crop(size=(4, 5), padding=1)
    op.eval()
    image = picture()
    out = op(Batch.from_parts({"image": jnp.asarray(image)[None]}))["image"][0]
    np.testing.assert_array_equal(out, image[1:5, 1:6])


def test_crop_larger_than_the_picture_is_refused():
    batch = Batch.from_parts({"image": jnp.zeros((1, 4, 4, 3))})
    with pytest.raises(ValueError, match=r"window of \(5, 4\).* is not inside \(4, 4\)"):
        crop(size=(5, 4))(batch)
    assert crop(size=(5, 4), padding=1)(batch)["image"].shape == (1, 5, 4, 3)


def test_boxes_have_the_area_and_the_ratio_asked_for():
    top, left, height, width = draws(resized(size=(8, 8)), (100, 120, 3)).T
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= 100
    assert (left + width).max() <= 120
    share, ratio = height * width / 12000, width / height
    assert share.min() > 0.07
    assert 0.72 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.39
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.04)  # tall ones fit less often
    few = draws(resized(size=(8, 8), scale=(0.1, 0.3), ratio=(1.0, 1.0)), (100, 120, 3))
    assert (few[:, 2] == few[:, 3]).all()
    area = few[:, 2] ** 2 / 12000  # all fit: uniform
    np.testing.assert_allclose(np.quantile(area, [0.25, 0.5, 0.75]), [0.15, 0.2, 0.25], atol=0.006)
    middle = (few[:, 0] + few[:, 2] / 2).mean(), (few[:, 1] + few[:, 3] / 2).mean()
    np.testing.assert_allclose(middle, (50, 60), atol=1)


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (3, 40), (40, 3), (1, 1)])
def test_boxes_are_those_of_torchvision(size):
    box = jax.jit(lambda u: resized_crop_box(u, image_size=size, scale=(0.1, 1), ratio=(0.75, 1.4)))
    for seed in range(20):
        numbers = np.random.default_rng(seed).random((10, 4))
        with jax.enable_x64(True):
            found = box(jnp.asarray(numbers)).tolist()
        assert found == list(torchvision_box(numbers, size, (0.1, 1), (0.75, 1.4)))


@pytest.mark.parametrize(
    ("method", "filter"), [("linear", Image.BILINEAR), ("cubic", Image.BICUBIC)]
)
def test_resized_crop_is_the_resize_of_pillow(method, filter):
    image, (top, left, height, width) = picture((9, 12), 1).astype(np.float32), (2, 3, 5, 8)
    op = resized(size=(4, 11), method=method)
    out = by_hand(op, image, jnp.array([top, left, height, width], jnp.float32))
    # Pillow takes (width, height), and boxes as left, top, right, bottom
    box = (left, top, left + width, top + height)
    expected = Image.fromarray(image).resize((11, 4), filter, box=box)
    np.testing.assert_allclose(out, np.asarray(expected), rtol=1e-5, atol=1e-3)


def test_resized_crop_in_evaluation_is_the_largest_box_of_the_ratio():
    op = resized(size=(3, 3))
    op.eval()
    image = picture((6, 8, 3)).astype(np.float32)
    out = op(Batch.from_parts({"image": jnp.asarray(image)[None]}))["image"]
    expected = resampled(image[None].astype(np.float64), (0, 1, 6, 6), (3, 3))
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    assert central_box((3, 40), (0.5, 2.0)) == (0, 17, 3, 6)


def test_flips_come_at_their_rates_and_by_themselves():
    drawn = draws(flip(horizontal=0.3, vertical=0.6), (2, 2, 1))
    assert drawn["horizontal"].mean() == pytest.approx(0.3, abs=0.025)
    assert drawn["vertical"].mean() == pytest.approx(0.6, abs=0.025)
    both = (drawn["horizontal"] & drawn["vertical"]).mean()
    assert both == pytest.approx(0.18, abs=0.02)


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
def test_flip_by_hand(horizontal, vertical):
    image = picture()
    params = {"horizontal": jnp.asarray(horizontal), "vertical": jnp.asarray(vertical)}
    expected = image[:: 1 - 2 * vertical, :: 1 - 2 * horizontal]
    np.testing.assert_array_equal(by_hand(flip(), image, params), expected)
    np.testing.assert_array_equal(by_hand(flip(), image[..., 0], params), expected[..., 0])


def test_jitter_draws_uniformly_in_its_ranges():
    drawn = draws(
        jitter(brightness=0.4, contrast=1.5, saturation=0.0, hue=0.1, rate=0.8), (1, 1, 3)
    )
    assert drawn.keys() == {"apply", "brightness", "contrast", "hue"}
    assert drawn["apply"].mean() == pytest.approx(0.8, abs=0.02)
    for name, low, high in [("brightness", 0.6, 1.4), ("contrast", 0, 2.5), ("hue", -0.1, 0.1)]:
        quarters = np.quantile(drawn[name], [0.25, 0.5, 0.75])
        expected = low + (high - low) * np.array([0.25, 0.5, 0.75])
        np.testing.assert_allclose(quarters, expected, atol=0.04 * (high - low))
        assert low <= drawn[name].min()
        assert drawn[name].max() <= high


@pytest.mark.parametrize(
    ("adjust", "enhance"),
    [
        (functional.adjust_brightness, ImageEnhance.Brightness),
        (functional.adjust_contrast, ImageEnhance.Contrast),
        (functional.adjust_saturation, ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.0, 0.7, 1.0, 1.6])
def test_bytes_are_within_one_of_pillow(adjust, enhance, factor):
    image = picture((5, 7, 3))
    out = np.asarray(jax.jit(adjust)(jnp.asarray(image), jnp.float32(factor)))
    assert out.dtype == np.uint8
    expected = np.asarray(enhance(Image.fromarray(image)).enhance(factor))
    # Pillow cuts fractions off, and rounds grey to whole numbers before
    assert np.abs(out.astype(int) - expected.astype(int)).max() <= 1


def test_jitter_by_hand_is_one_step_after_the_other():
    image = np.random.default_rng(0).random((4, 5, 3), dtype=np.float32)
    amounts = {"brightness": 1.2, "contrast": 0.8, "saturation": 1.1, "hue": 0.05}
    params = {name: jnp.float32(x) for name, x in amounts.items()}
    out = by_hand(jitter(), image, params | {"apply": jnp.asarray(True)})
    expected = jnp.asarray(image)
    for step in ("brightness", "contrast", "saturation", "hue"):
        adjust = {
            "brightness": functional.adjust_brightness,
            "contrast": functional.adjust_contrast,
            "saturation": functional.adjust_saturation,
            "hue": functional.adjust_hue,
        }[step]
        expected = adjust(expected, params[step])
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    off = by_hand(jitter(), image, params | {"apply": jnp.asarray(False)})
    np.testing.assert_array_equal(off, image)


def test_grey_pictures_have_no_colour_to_change():
    batch = Batch.from_parts({"image": jnp.full((2, 3, 3), 100, jnp.uint8)})
    assert jitter(saturation=0.0, hue=0.0)(batch)["image"].dtype == jnp.uint8
    with pytest.raises(ValueError, match=r"must be \[..., h, w, 3\], got \(3, 3, 1\)"):
        jitter(hue=0.0)(batch)
    with pytest.raises(TypeError, match=r"floating point in .* or uint8, got int32"):
        functional.adjust_brightness(jnp.zeros((2, 2, 3), jnp.int32), 1.0)
    with pytest.raises(ValueError, match=r"1 or 3 channels, got \(2, 2, 2\)"):
        functional.adjust_brightness(jnp.zeros((2, 2, 2)), 1.0)


@pytest.mark.parametrize(
    "op",
    [crop(size=(3, 3)), resized(size=(3, 3)), flip(), jitter()],
    ids=lambda op: type(op).__name__,
)
def test_a_record_draws_the_same_anywhere(op):
    images = np.random.default_rng(0).random((32, 5, 6, 3), dtype=np.float32)

    def run(rows, epoch=0):
        index = np.asarray(rows, np.uint32)
        batch = Batch.from_parts(
            {"image": jnp.asarray(images[rows])}, record_index=index, epoch=jnp.uint32(epoch)
        )
        return np.asarray(op(batch)["image"])

    op.train()
    whole = run(np.arange(32))
    order = np.random.default_rng(1).permutation(32)
    np.testing.assert_allclose(run(order), whole[order], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(run(order[:5]), whole[order[:5]], rtol=1e-6, atol=1e-6)
    assert (run(np.arange(32), epoch=1) != whole).any()
    op.eval()
    first = run(np.arange(32))
    np.testing.assert_array_equal(run(np.arange(32), epoch=1), first)
    if first.shape == images.shape:
        np.testing.assert_array_equal(first, images)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (RandomCropConfig, {"size": (3, 3), "padding": -1}, "padding must be an integer of at"),
        (RandomCropConfig, {"size": (3, 3), "padding_mode": "wrap"}, "padding_mode must be one of"),
        (RandomResizedCropConfig, {"size": (3, 3), "scale": (0.5, 0.1)}, "scale must be .least"),
        (RandomResizedCropConfig, {"size": (3, 3), "scale": (0.5, 2.0)}, r"scale .* in \(0, 1\]"),
        (RandomResizedCropConfig, {"size": (3, 3), "ratio": 1.0}, "ratio must be .least"),
        (RandomResizedCropConfig, {"size": (3, 3), "method": "nearest"}, "method must be one of"),
        (RandomFlipConfig, {"horizontal": 1.5}, "horizontal must be a number"),
        (RandomFlipConfig, {"vertical": -0.5}, "vertical must be a number"),
        (ColorJitterConfig, {"brightness": -1.0}, "brightness must be a number"),
        (ColorJitterConfig, {"contrast": -1.0}, "contrast must be a number"),
        (ColorJitterConfig, {"saturation": -1.0}, "saturation must be a number"),
        (ColorJitterConfig, {"hue": 0.6}, r"hue must be a number in \[0, 0.5\]"),
        (ColorJitterConfig, {"rate": 2}, "rate must be a number"),
        (RandomFlipConfig, {"input_fields": ["a", "b"]}, "input_fields must hold 1 fields"),
    ],
)
def test_configs_refuse(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**(FIELD | options), **RANDOM)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (RandomCropConfig, {"size": (3, 3)}),
        (RandomResizedCropConfig, {"size": (3, 3)}),
        (RandomFlipConfig, {}),
        (ColorJitterConfig, {}),
    ],
)
def test_what_draws_must_be_stochastic(config, options):
    with pytest.raises(ValueError, match="draws: give stochastic=True and stream_name"):
        config(**FIELD, **options)


def test_functions_say_what_they_need():
    image = jnp.zeros((4, 4, 1))
    with pytest.raises(ValueError, match=r"\[..., h, w, c\], got shape \(4, 4\)"):
        functional.resize(image[..., 0], size=(2, 2))
    with pytest.raises(ValueError, match="'nearest' cannot follow"):
        functional.resized_crop(image, jnp.ones(4), size=(2, 2), method="nearest")
    with pytest.raises(ValueError, match="width 4 reflects more"):
        functional.pad(image, 4, mode="reflect")
    with pytest.raises(ValueError, match="std of shape"):
        functional.normalize(image, mean=0.0, std=jnp.ones(3))
    with pytest.raises(ValueError, match=r"a picture is \[h, w\] or"):
        flip()(Batch.from_parts({"image": jnp.zeros((2, 3, 3, 3, 3))}))
    with pytest.raises(ValueError, match=r"window of \(3, 3\) at \(2, 0\) is not inside"):
        functional.crop(image, 2, 0, size=(3, 3))


def test_bytes_normalise_to_float():
    op = Normalize(NormalizeConfig(**FIELD, mean=0.5, std=0.25, scale=1 / 255))
    out = op(Batch.from_parts({"image": jnp.asarray(picture())[None]}))["image"]
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out[0], (picture() / 255 - 0.5) / 0.25, rtol=1e-5, atol=1e-6)
