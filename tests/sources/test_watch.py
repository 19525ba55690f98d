"""A question is due once a second, and at every time once the answer was bad."""

import pytest

from datarax.sources import watch


def test_it_is_due_once_a_second_and_always_after_a_bad_answer(monkeypatch):
    now = 10.0
    monkeypatch.setattr(watch.time, "monotonic", lambda: now)

    def question():
        if now > 12:
            raise OSError("changed")

    made, asked = watch.Watch(), []
    for now in (10.0, 10.5, 10.99, 11.0, 11.5):
        if now >= made.due:
            made.ask(question)
            asked.append(now)
    assert asked == [10.0, 11.0]
    for now in (12.5, 12.6, 12.7):
        assert now >= made.due
        with pytest.raises(OSError, match="changed"):
            made.ask(question)
