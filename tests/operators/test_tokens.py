"""Dropped and masked tokens: loops with the draws by hand, statistics, padding, evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax import functional
from datarax.core import Batch
from datarax.functional.text import is_one_of, surviving_tokens
from datarax.operators import TokenDropout, TokenDropoutConfig, TokenMasking, TokenMaskingConfig

RANDOM = {"stochastic": True, "stream_name": "noise"}
DROPOUT = {"input_fields": ["ids", "mask"], "output_fields": ["ids", "mask"], "rate": 0.3}
MASKING = {
    "input_fields": ["ids", "mask"],
    "output_fields": ["ids", "labels"],
    "mask_id": 3,
    "vocabulary_size": 20,
    "special_ids": (0, 1, 2),
}


def dropout(**options):
    return TokenDropout(TokenDropoutConfig(**(DROPOUT | options), **RANDOM), rngs=nnx.Rngs(0))


def masking(**options):
    return TokenMasking(TokenMaskingConfig(**(MASKING | options), **RANDOM), rngs=nnx.Rngs(0))


def sentences(rows, length=12, *, index=None, epoch=0):
    """Ids from 4, a 1 before and a 2 behind, padded with 0."""
    index = np.arange(rows) if index is None else np.asarray(index)
    ids = np.zeros((len(index), length), np.int32)
    for row, number in enumerate(index):
        rng = np.random.default_rng(number)
        words = rng.integers(4, 20, rng.integers(2, length - 1))
        ids[row, : len(words) + 2] = [1, *words, 2]
    return Batch.from_parts(
        {"ids": jnp.asarray(ids), "mask": jnp.asarray(ids > 0)},
        record_index=jnp.asarray(index, jnp.uint32),
        epoch=jnp.uint32(epoch),
    )


def test_dropout_by_hand():
    batch, op = sentences(20), dropout(rate=0.4, special_ids=(1, 2), pad_id=7)
    draws = np.random.default_rng(0).random((20, 12), dtype=np.float32)
    run = jax.jit(lambda data, u: op.apply(data, {}, None, u)[0])
    for row in range(20):
        out = run({name: batch[name][row] for name in batch}, draws[row])
        words = []
        for token, there, u in zip(batch["ids"][row], batch["mask"][row], draws[row], strict=True):
            if there and (token in (1, 2) or u >= 0.4):
                words.append(int(token))
        assert out["ids"].tolist() == words + [7] * (12 - len(words))
        assert out["mask"].tolist() == [True] * len(words) + [False] * (12 - len(words))


def test_dropout_keeps_order_rate_and_one_token():
    batch = sentences(3000)
    out = dropout(rate=0.3)(batch)
    share = np.sum(out["mask"]) / np.sum(batch["mask"])
    assert share == pytest.approx(0.7, abs=0.02)
    before, after, left = (np.asarray(x) for x in (batch["ids"], out["ids"], out["mask"]))
    for row in range(50):
        rest = iter(before[row].tolist())
        assert all(token in rest for token in after[row][left[row]].tolist())  # a subsequence
    only = dropout(rate=1.0)(batch)
    np.testing.assert_array_equal(np.sum(only["mask"], axis=1), 1)
    nothing = batch.replace(data={**batch.data, "mask": jnp.zeros((3000, 12), bool)})
    assert not np.any(dropout()(nothing)["mask"])


def test_masking_by_hand():
    batch, op = sentences(20), masking(rate=0.5, mask_share=0.5, random_share=0.3)
    draws = np.random.default_rng(1).random((20, 12, 3), dtype=np.float32)
    run = jax.jit(lambda data, u: op.apply(data, {}, None, u)[0])
    ordinary = [token for token in range(20) if token not in (0, 1, 2, 3)]
    for row in range(20):
        out = run({name: batch[name][row] for name in batch}, draws[row])
        for place in range(12):
            token, (choice, action, word) = int(batch["ids"][row, place]), draws[row, place]
            if token in (0, 1, 2) or choice >= 0.5:
                expected, label = token, -100
            elif action < 0.5:
                expected, label = 3, token
            else:
                replaced = ordinary[int(word * np.float32(16))]
                expected, label = replaced if action < 0.8 else token, token
            assert (out["ids"][place], out["labels"][place]) == (expected, label)


def test_masking_shares():
    batch = sentences(4000)
    out = masking()(batch)
    before, after, labels = (np.asarray(x) for x in (batch["ids"], out["ids"], out["labels"]))
    words = before > 3
    chosen = labels != -100
    assert not chosen[~words].any()
    assert chosen[words].mean() == pytest.approx(0.15, abs=0.01)
    np.testing.assert_array_equal(labels[chosen], before[chosen])
    np.testing.assert_array_equal(after[~chosen], before[~chosen])
    hidden, kept = after[chosen] == 3, after[chosen] == before[chosen]
    assert hidden.mean() == pytest.approx(0.8, abs=0.02)
    assert kept.mean() == pytest.approx(0.1 + 0.1 / 16, abs=0.02)
    written = after[chosen][~hidden & ~kept]
    assert written.min() > 3  # never a special id
    shares = np.bincount(written, minlength=20)[4:] / len(written)
    np.testing.assert_allclose(shares, 1 / 16, atol=0.04)


@pytest.mark.parametrize("op", [dropout(rate=0.5), masking(rate=0.5)], ids=["dropout", "masking"])
def test_a_record_draws_the_same_anywhere(op):
    def run(index, epoch=0):
        out = op(sentences(0, index=index, epoch=epoch))
        return np.concatenate([np.asarray(out[name]) for name in sorted(out)], axis=1)

    op.train()
    whole = run(np.arange(30))
    order = np.random.default_rng(0).permutation(30)
    np.testing.assert_array_equal(run(order), whole[order])
    np.testing.assert_array_equal(run(order[:7]), whole[order[:7]])
    assert (run(np.arange(30), epoch=1) != whole).any()


def test_evaluation_changes_nothing():
    batch = sentences(9)
    for op in (dropout(rate=0.9), masking(rate=0.9)):
        op.eval()
        out = op(batch)
        np.testing.assert_array_equal(out["ids"], batch["ids"])
        np.testing.assert_array_equal(out["mask"], batch["mask"])
    assert (np.asarray(out["labels"]) == -100).all()


def test_hashes_of_words_are_dropped_too():
    ids = jnp.asarray([[2**32 - 1, 5, 9, 0]], jnp.uint32)
    batch = Batch.from_parts({"ids": ids, "mask": ids > 0})
    out = dropout(rate=1.0)(batch)["ids"]
    assert out.dtype == jnp.uint32
    assert out[0, 0] in ids[0]
    assert out[0, 1:].tolist() == [0, 0, 0]


def test_functions_say_what_they_need():
    ids, mask = jnp.arange(4), jnp.ones(4, bool)
    with pytest.raises(TypeError, match="keep must be boolean"):
        functional.keep_tokens(ids, jnp.ones(4))
    with pytest.raises(ValueError, match=r"keep must have shape \(4,\), got \(3,\)"):
        functional.keep_tokens(ids, mask[:3])
    with pytest.raises(ValueError, match=r"draws must have shape \(4, 3\)"):
        functional.mask_tokens(ids, mask, jnp.ones((3, 3)), mask_id=1, vocabulary_size=9)
    with pytest.raises(ValueError, match="vocabulary_size 2 leaves no id"):
        functional.mask_tokens(
            ids, mask, jnp.ones((4, 3)), mask_id=1, vocabulary_size=2, special_ids=(0,)
        )
    short = jnp.arange(4, dtype=jnp.uint8)
    assert not is_one_of(short, [256, -1]).any()  # not 0 and 255
    with pytest.raises(ValueError, match="pad_id must be an uint8, as the tokens are, got 300"):
        functional.keep_tokens(short, mask, pad_id=300)
    with pytest.raises(ValueError, match="mask_id must be an uint8"):
        functional.mask_tokens(short, mask, jnp.ones((4, 3)), mask_id=300, vocabulary_size=9)
    with pytest.raises(ValueError, match="vocabulary_size - 1 must be an uint8"):
        functional.mask_tokens(short, mask, jnp.ones((4, 3)), mask_id=1, vocabulary_size=300)
    assert surviving_tokens(jnp.zeros(0), jnp.zeros(0, bool), rate=0.5).shape == (0,)
    floating = Batch.from_parts({"ids": jnp.ones((1, 4)), "mask": jnp.ones((1, 4), bool)})
    with pytest.raises(TypeError, match="tokens must be integers, got float32"):
        dropout()(floating)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (TokenDropoutConfig, DROPOUT | {"rate": 1.5}, "rate must be a number"),
        (TokenDropoutConfig, DROPOUT | {"pad_id": -1}, "pad_id must be an integer"),
        (TokenDropoutConfig, DROPOUT | {"special_ids": [1]}, "special_ids must be a tuple"),
        (TokenDropoutConfig, DROPOUT | {"special_ids": (-1,)}, "special_ids must be an integer"),
        (TokenDropoutConfig, DROPOUT | {"input_fields": ["ids"]}, "input_fields must hold 2"),
        (TokenMaskingConfig, MASKING | {"output_fields": ["ids"]}, "output_fields must hold 2"),
        (TokenMaskingConfig, MASKING | {"mask_id": -1}, "mask_id must be an integer"),
        (TokenMaskingConfig, MASKING | {"vocabulary_size": 0}, "vocabulary_size must be"),
        (TokenMaskingConfig, MASKING | {"rate": 2.0}, "rate must be a number"),
        (TokenMaskingConfig, MASKING | {"mask_share": 2.0}, "mask_share must be a number"),
        (
            TokenMaskingConfig,
            MASKING | {"random_share": 0.3},
            "at most 1 together, got 0.8",
        ),
        (TokenMaskingConfig, MASKING | {"ignore_index": 0.5}, "ignore_index must be an integer"),
    ],
)
def test_configs_refuse(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options, **RANDOM)
    with pytest.raises(ValueError, match="draws: give stochastic=True"):
        config(**(DROPOUT if config is TokenDropoutConfig else MASKING))
