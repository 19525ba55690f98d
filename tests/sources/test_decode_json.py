import json

import pytest

from datarax.sources.decode_json import follow, parse_json
from datarax.sources.record import DecodeError

FINE = [
    {"a": [1, 2.5, None, True], "b": {"c": "é😀", "d.e": [[]]}},
    [],
    3,
    'brackets in text [[[[ {{{{ "quoted" \\',
    {"\\": '\\"[', "[": "]"},
    "\ud800",
]


@pytest.mark.parametrize("value", FINE)
@pytest.mark.parametrize("kind", [str, bytes])
def test_json_is_read_as_by_the_standard_library(value, kind):
    text = json.dumps(value)
    assert parse_json(text if kind is str else text.encode(), depth=4) == json.loads(text)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("form", ["[{}]", '{{"[[[a": {}}}'])
def test_depth_is_counted_exactly(depth, form):
    text = "1"
    for _ in range(depth):
        text = form.format(text)
    beside = f"[{text},{text},{text}]"
    assert parse_json(text, depth=depth) == json.loads(text)
    assert parse_json(beside, depth=depth + 1) == json.loads(beside)
    with pytest.raises(DecodeError, match=f"nested deeper than {depth} "):
        parse_json(beside, depth=depth)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
        (b'[{"x": {"y": 1, "y": 1}}]', "the key 'y' twice"),
        (b"[NaN]", "NaN, which is not finite"),
        (b"[-Infinity]", "-Infinity, which is not finite"),
        (b"1e999", "1e999, which is not finite"),
        (b"[1,", "not JSON: Expecting value"),
        (b"", "not JSON: Expecting value"),
        (b'"\xff"', "invalid UTF-8 at byte 1"),
        (b"9" * 5000, "not JSON: "),
        (b"[" * 100_000, "nested deeper"),
        (b'"' + b'\\"' * 100_000 + b"[" * 50, "not JSON: Unterminated string"),
    ],
    ids=range(11),
)
def test_what_is_no_json_is_refused_in_one_line(text, reason):
    with pytest.raises(DecodeError, match=reason) as caught:
        parse_json(text, depth=8)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


VALUE = {"a": {"b": [5, {"c": 6}]}, "d.e": 7, "d": {"e": 8, "f.g": 9}, "n": None}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.b.0", 5),
        ("a.b.1.c", 6),
        ("d.e", 7),
        ("d.f.g", 9),
        ("a", VALUE["a"]),
        ("n", None),
        ("n.x.y", None),
        ("a.b.2", None),
        ("a.x.y", None),
    ],
)
def test_paths_lead_through_objects_and_lists(path, found):
    assert follow(VALUE, path) == found


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a.b.0.c", "expected an object with 'c', got int"),
        ("a.b.c", "expected a place in a list, got 'c'"),
        ("a.b.-1", "expected a place in a list, got '-1'"),
    ],
)
def test_paths_through_what_has_no_inside_are_refused(path, reason):
    with pytest.raises(DecodeError, match=reason):
        follow(VALUE, path)
