"""Asking once a second, and at every time once the answer was bad."""

import pytest

from datarax.sources import watch


def test_it_asks_once_a_second_and_always_after_a_bad_answer(monkeypatch):
    now, asked = [10.0], []
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])

    def question():
        asked.append(now[0])
        if now[0] > 12:
            raise OSError("changed")

    made = watch.Watch()
    for moment in (10.0, 10.5, 10.99, 11.0, 11.5):
        now[0] = moment
        made.ask(question)
    assert asked == [10.0, 11.0]
    for moment in (12.5, 12.6, 12.7):
        now[0] = moment
        with pytest.raises(OSError, match="changed"):
            made.ask(question)
    assert len(asked) == 5
