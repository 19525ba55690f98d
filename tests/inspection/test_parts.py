"""Spreads, equal texts and wording on their own."""

import statistics
import tomllib

import numpy as np
import pytest

from datarax.inspection import duplicates
from datarax.inspection.duplicates import TextCounter
from datarax.inspection.spread import KEPT, Reservoir
from datarax.inspection.wording import printable, printable_toml, shortened
from datarax.sources.fields import Fields


def test_a_spread_of_few_numbers_is_exact():
    numbers = np.random.default_rng(0).integers(0, 10**6, KEPT).tolist()
    reservoir = Reservoir(seed=0)
    for number in numbers:
        reservoir.add(number)
    spread = reservoir.spread()
    assert spread.median == statistics.median_low(numbers)
    assert (spread.low, spread.high, spread.count) == (min(numbers), max(numbers), KEPT)
    assert not spread.is_sampled


def test_the_median_of_many_is_near_and_the_same_each_time():
    spreads = []
    for _ in range(2):
        reservoir = Reservoir(seed=1)
        for number in range(50_000):
            reservoir.add(number)
        spreads.append(reservoir.spread())
    assert spreads[0] == spreads[1]
    assert spreads[0].is_sampled
    assert (spreads[0].low, spreads[0].high) == (0, 49_999)
    assert abs(spreads[0].median - 25_000) < 1500  # nearly 4 deviations of 50,000 / (2 sqrt(4096))


def test_of_nothing_there_is_none():
    assert Reservoir(seed=0).spread() is None
    assert TextCounter().duplicates() is None


def test_more_texts_than_are_kept_are_a_sample(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST", 4)
    counter = TextCounter()
    for place, text in enumerate(["a", "b", "a", "c"]):
        counter.add(text, place)
    assert not counter.duplicates().is_sample
    counter.add("b", 4)
    found = counter.duplicates()
    assert found.is_sample
    assert (found.texts, found.different, found.sharing, found.frequent) == (4, 3, 2, ((2, 0),))


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb\t c", "a b c"), ("\x1b[0m", "?[0m"), ("\u202ea\udcff", "?a?"), ("é", "é")],
)
def test_printable(text, shown):
    assert printable(text) == shown


def test_fields_of_hostile_names_are_printable_and_still_read():
    fields = Fields.from_mapping({"a\u202e\x9b": {"from": "\x1b[31m\U000e0001", "decode": "text"}})
    printed = printable_toml(str(fields))
    assert printed.isprintable()
    assert Fields.from_mapping(tomllib.loads(printed)) == fields


def test_shortened():
    assert shortened("abcd", 4) == "abcd"
    assert shortened("abcde", 4) == "abc…"
