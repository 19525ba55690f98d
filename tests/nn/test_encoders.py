import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.nn.encoders import (
    ImageEncoder,
    PointEncoder,
    SequenceEncoder,
    SoundEncoder,
    TextEncoder,
    TokenEncoder,
    VectorEncoder,
)
from datarax.nn.ngrams import hash_ngrams, hash_words

ENCODERS = {
    "image": (ImageEncoder, {"size": 16, "widths": (8, 16)}),
    "points": (PointEncoder, {"widths": (8, 8)}),
    "text": (TextEncoder, {"table_size": 128, "width": 16}),
    "photo": (ImageEncoder, {"size": (13, 9), "channels": 3, "widths": (8, 16)}),
    "tokens": (TokenEncoder, {"length": 7, "table_size": 32, "width": 16}),
    "sequence": (SequenceEncoder, {"length": 5, "in_features": 3, "width": 16}),
    "vector": (VectorEncoder, {"in_features": 6}),
    "sound": (SoundEncoder, {"samples": 700, "rate": 4000, "mels": 8, "width": 16}),
}
FIRST = ("points",)  # which run eagerly in the gate


SHAPES = {"sequence": (5, 3), "vector": (2, 3), "sound": (700,)}


def encode_text(*texts, size=40):
    rows = [np.frombuffer(text.encode().ljust(size, b"\0"), np.uint8) for text in texts]
    return jnp.asarray(np.stack(rows))


def sample(kind, n=3):
    if kind == "image":
        return jax.random.bits(jax.random.key(1), (n, 16, 16), jnp.uint8)
    if kind == "points":
        return jax.random.normal(jax.random.key(1), (n, 64, 3))
    if kind == "photo":
        return jax.random.bits(jax.random.key(1), (n, 13, 9, 3), jnp.uint8)
    if kind == "tokens":
        return jax.random.randint(jax.random.key(1), (n, 7), 0, 1000)
    if kind in SHAPES:
        return jax.random.normal(jax.random.key(1), (n, *SHAPES[kind]))
    return encode_text("greek small letter alpha", "snowman", "braille pattern dots-12")[:n]


class Compiled:
    """An encoder whose calls are compiled: eager ones compile every operation apart."""

    def __init__(self, encoder):
        self.encoder = encoder

    def __call__(self, x, rng_key=None):
        return run(self.encoder, x, rng_key)


@nnx.jit
def run(encoder, x, rng_key):
    return encoder(x, rng_key=rng_key)


@nnx.jit
def gradients_of(encoder, x):
    def objective(encoder):
        result = encoder(x)
        return jnp.sum(jnp.square(result) * jnp.arange(result.shape[1], dtype=jnp.float32)[None])

    return nnx.grad(objective)(encoder)


def build(kind, **options):
    cls, defaults = ENCODERS[kind]
    return Compiled(cls(**defaults, out_features=12, rngs=nnx.Rngs(0), **options))


@pytest.mark.parametrize("kind", ENCODERS)
class TestEveryEncoder:
    def test_result_and_row_independence(self, kind):
        encode, x = build(kind), sample(kind)
        result = encode(x)
        assert result.shape == (3, 12)
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(encode(x[1:2]), result[1:2], atol=1e-5)
        assert np.abs(np.asarray(result[0] - result[1])).max() > 1e-3

    def test_dropout_needs_a_key_and_follows_it(self, kind):
        encode, x = build(kind, dropout=0.5), sample(kind)
        key, other = jax.random.split(jax.random.key(0))
        np.testing.assert_array_equal(encode(x), build(kind)(x))
        first = encode(x, rng_key=key)
        np.testing.assert_array_equal(first, encode(x, rng_key=key))
        assert np.abs(np.asarray(first - encode(x, rng_key=other))).max() > 1e-3
        assert np.abs(np.asarray(first - encode(x))).max() > 1e-3

    def test_every_parameter_has_a_gradient(self, kind):
        gradients = gradients_of(build(kind).encoder, sample(kind))
        for path, gradient in jax.tree_util.tree_flatten_with_path(gradients)[0]:
            where = jax.tree_util.keystr(path)
            assert np.isfinite(gradient).all(), where
            # The bias of the keys adds the same to all logits of a query.
            assert np.abs(gradient).max() > 0 or "key" in where, where


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in FIRST else pytest.mark.slow) for k in ENCODERS]
)
def test_eager_is_jit(kind):
    encode, x = build(kind), sample(kind)
    np.testing.assert_allclose(encode.encoder(x), encode(x), atol=1e-5)


@pytest.mark.parametrize(("kind", "cut"), [("tokens", 4), ("sound", 300)])
def test_what_is_masked_reaches_nothing(kind, cut):
    encode, x = build(kind).encoder, sample(kind)
    mask = jnp.arange(x.shape[1])[None] < jnp.array([cut, x.shape[1], 0])[:, None]
    spoiled = jnp.where(mask, x, 99)

    @nnx.jit
    def run(encode, x, mask):
        return encode(x, mask)

    result = run(encode, x, mask)
    np.testing.assert_array_equal(result, run(encode, spoiled, mask))
    np.testing.assert_allclose(result[1], build(kind)(x)[1], atol=1e-5)
    assert np.abs(np.asarray(result[0] - build(kind)(x)[0])).max() > 1e-3
    other = build(kind).encoder
    np.testing.assert_array_equal(run(other, spoiled * 0 + 5, mask)[2], result[2])


def test_sounds_tell_pitch_from_pitch_and_not_where_it_begins():
    encode = build("sound", dropout=0.0)
    t = jnp.arange(700) / 4000
    tone = lambda f, phase: jnp.sin(2 * jnp.pi * f * t + phase)  # noqa: E731
    low, same, high = encode(jnp.stack([tone(300, 0.0), tone(300, 0.3), tone(1500, 0.0)]))
    assert np.linalg.norm(low - same) < 0.3 * np.linalg.norm(low - high)


def test_image_values_are_scaled_and_places_matter():
    encode = build("image")
    shifted = jnp.roll(sample("image"), 3, axis=2)
    assert np.abs(np.asarray(encode(shifted) - encode(sample("image")))).max() > 1e-2
    assert np.isfinite(encode(jnp.full((1, 16, 16), 255, jnp.uint8))).all()


def test_image_refusals():
    with pytest.raises(ValueError, match="widths divisible by 8, got 10 and"):
        ImageEncoder(size=10, widths=(8, 9), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="expected a positive size"):
        ImageEncoder(size=(0, 8), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"expected pictures \[n, 16, 16\]"):
        build("image")(jnp.zeros((1, 8, 8), jnp.uint8))


def test_points_of_another_length():
    assert build("points")(jnp.zeros((2, 20, 3))).shape == (2, 12)


class TestText:
    def test_padding_and_spaces_do_not_matter(self):
        encode = build("text")
        plain = encode(encode_text("black star"))
        for text, size in (("black  star ", 40), (" black star", 25)):
            np.testing.assert_allclose(encode(encode_text(text, size=size)), plain, atol=1e-5)

    def test_order_of_words_matters(self):
        encode = build("text")
        one, other = encode(encode_text("star above line", "line above star"))
        assert np.abs(np.asarray(one - other)).max() > 1e-3

    def test_unseen_words_share_their_pieces(self):
        encode = build("text", ngrams=(3,))
        table = np.asarray(encode.encoder.table.embedding[...])
        hashes, owner = hash_ngrams(encode_text("tonos"), sizes=[3])
        words, _ = hash_words(encode_text("tonos"), max_words=1)
        slots = [int(words[0, 0]) % 128] + [
            int(h) % 128 for h, o in zip(hashes[0], owner[0], strict=True) if o == 0
        ]
        assert len(slots) == 6
        expected = table[slots].sum(axis=0) / np.sqrt(6)
        vectors, exists = encode.encoder.words(encode_text("tonos"))
        np.testing.assert_allclose(vectors[0, 0], expected, rtol=1e-4)
        assert exists[0].tolist() == [True] + [False] * 11

    def test_a_text_without_words_is_finite(self):
        result = build("text")(encode_text("", "   "))
        assert np.isfinite(result).all()
        np.testing.assert_array_equal(result[0], result[1])
        gradients = gradients_of(build("text").encoder, encode_text("", "a"))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))

    def test_words_beyond_the_last_are_not_read(self):
        encode = build("text", max_words=2)
        np.testing.assert_allclose(*encode(encode_text("one two three", "one two four")), atol=1e-6)


@functools.partial(jax.jit, static_argnums=1)
def hashed(text, size):
    return hash_ngrams(text, sizes=[size])


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("text", ["an owl", "  a  bc ", "x", "", "dots-123 ä"])
def test_ngrams_are_those_of_a_python_loop(text, size):
    words = text.encode().split()
    expected = []
    for number, word in enumerate(words):
        marked = b" " + word + b" "
        runs = [marked[i : i + size] for i in range(len(marked) - size + 1)]
        expected += [(run, number) for run in runs if run.strip()]
    hashes, owner = hashed(encode_text(text), size)
    found = [(int(h), int(o)) for h, o in zip(hashes[0], owner[0], strict=True) if o >= 0]
    assert [number for _, number in found] == [number for _, number in expected]
    meanings = {}
    for (run, _), (value, _) in zip(expected, found, strict=True):
        assert meanings.setdefault(run, value) == value
    assert len(set(meanings.values())) == len(meanings)


def test_word_hashes_tell_anagrams_apart_and_know_a_word_anywhere():
    hashes, exists = hash_words(encode_text("tea ate eat tea", "ate"), max_words=5)
    assert exists.tolist() == [[True] * 4 + [False], [True] + [False] * 4]
    first = hashes[0].tolist()
    assert first[0] == first[3]
    assert len(set(first[:3])) == 3
    assert int(hashes[1, 0]) == first[1]


def test_padding_beyond_the_mask_changes_nothing():
    tokens = np.pad(np.arange(1, 6)[None], ((0, 0), (0, 7)))
    encode = nnx.jit(TokenEncoder(length=12, table_size=32, width=16, rngs=nnx.Rngs(0)))
    check_cut(encode, tokens, 5, [5, 6, 12])


@pytest.mark.parametrize("count", [3, 333, 349, 350])
def test_padding_behind_a_sound_changes_nothing(count):
    sound = np.zeros((1, 1600), np.float32)
    sound[:, :count] = np.random.default_rng(0).normal(size=count)
    options = {"samples": 1600, "rate": 1000, "mels": 8, "width": 16}
    lengths = [length for length in (3, 350, 360, 700) if length >= count]
    encode = nnx.jit(SoundEncoder(**options, rngs=nnx.Rngs(0)))
    check_cut(encode, sound, count, lengths, atol=1e-5)


def test_padding_behind_a_click_changes_nothing():
    sound = np.zeros((1, 24000), np.float32)
    sound[0, 0] = 0.6404
    encode = nnx.jit(SoundEncoder(samples=24000, rate=16000, width=16, rngs=nnx.Rngs(0)))
    check_cut(encode, sound, 1, [1, 2000], atol=1e-4)


def check_cut(encode, values, count, lengths, *, atol=2e-6):
    mask = np.arange(values.shape[1])[None] < count
    whole = encode(jnp.asarray(values), jnp.asarray(mask))
    for length in lengths:
        cut = encode(jnp.asarray(values[:, :length]), jnp.asarray(mask[:, :length]))
        np.testing.assert_allclose(cut, whole, rtol=0, atol=atol)
