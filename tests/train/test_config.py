import dataclasses
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from datarax.train.config import TrainConfig, dump_config, load_config
from datarax.train.settings import (
    check_settings,
    parse_assignment,
    read_toml,
    setting,
    settings_from,
    to_toml,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Every:
    """A setting of every kind."""

    flag: bool = setting(False, help="a flag")
    count: int = setting(3, at_least=0, help="a count")
    share: float = setting(0.25, above=0, below=1, help="a share")
    label: str = setting("plain", help="a text")
    table: Mapping[str, Any] | None = setting(None, help="a table")
    kind: str = setting("red", choices=("red", "green"), help="a choice")
    places: str | tuple[str, ...] | None = setting(None, help="one or several")
    sizes: tuple[int, ...] = setting((1, 2), at_most=9, help="a list of numbers")
    limit: float | None = setting(None, at_least=0, help="may be absent")

    def __post_init__(self):
        check_settings(self)


def write(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "config",
    [
        Every(),
        Every(flag=True, count=10**18, share=1e-9, sizes=(), limit=0.1 + 0.2),
        Every(label='"quoted" \\ back\nline\ttab \x7f \x01 é ά 🐦 # no comment'),
        Every(places=("a b", "c,d")),
        Every(places="a,b"),
        Every(kind="green", sizes=(-(2**63), 9), limit=1e308),
        Every(table={"a b": {"from": ["x", "y.z"], "n": 1.5, "on": True, "deep": {}}, "c": []}),
    ],
    ids=["defaults", "numbers", "text", "several", "one", "lists", "tables"],
)
def test_toml_round_trip(config):
    assert Every(**settings_from(tomllib.loads(to_toml(config)), Every)) == config


@pytest.mark.parametrize(
    "config",
    [TrainConfig(), TrainConfig(seed=2**32 - 1, learning_rate=1e-05, towers=("name", "image"))],
)
def test_config_round_trip(tmp_path, config):
    assert load_config(write(tmp_path, dump_config(config))) == config


def test_file_and_name_take_overrides(tmp_path):
    path = write(tmp_path, "seed = 4\nepochs = 7\n")
    assert load_config(path, {"epochs": 2}) == TrainConfig(seed=4, epochs=2)
    assert load_config("glyphs", {"towers": ["image", "name"]}).towers == ("image", "name")
    assert load_config("glyphs") == TrainConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", "unknown key 'epoch': did you mean 'epochs'?"),
        ("colour = 3", "unknown key 'colour': choose from batch_size, compute_dtype"),
        ("epochs = '3'", "epochs: expected a whole number at least 1, got the text '3'"),
        ("epochs = 3.0", "epochs: expected a whole number at least 1, got 3.0"),
        ("epochs = true", "epochs: expected a whole number at least 1, got true"),
        ("epochs = 0", "epochs: expected a whole number at least 1, got 0"),
        ("modality_dropout = 1.0", "expected a number at least 0 and below 1, got 1.0"),
        ("learning_rate = nan", "learning_rate: expected a number above 0, got nan"),
        ("learning_rate = inf", "learning_rate: expected a number above 0, got inf"),
        (f"learning_rate = 1{'0' * 400}", "learning_rate: expected a number above 0, got 1"),
        ("data = 'glyhps'", "expected glyphs or shards, got 'glyhps'; did you mean 'glyphs'?"),
        ("data = 1", "data: expected text, got 1"),
        ("fields = 1", "fields: expected a table, got 1"),
        ("ledger = 'a.jsonl'", "ledger: goes with shards, and data is 'glyphs'"),
        ("fused = ['image']", "fused: expected at least 2 of the towers"),
        ("fused = ['image', 'sound']", "fused: expected at least 2 of the towers"),
        ("towers = 'image'", "towers: expected a list, each entry text, got the text 'image'"),
        ("towers = ['image', 3]", "got 3"),
        ("towers = ['image', 'nam']", "got 'nam'; did you mean 'name'?"),
        ("towers = ['image']", "towers: expected at least 2 different fields, got ('image',)"),
        ("towers = ['name', 'name']", "expected at least 2 different fields"),
        ("[seed]\nx = 1", "seed: expected a whole number"),
        ("seed = 1\nepochs = \n", "not valid TOML: Invalid value (at line 2"),
        ("seed = 1\nseed = 2", "not valid TOML: Cannot overwrite"),
        (f"seed = {'9' * 5000}", "not valid TOML"),
        ("seed = " + "[" * 20000, "not valid TOML"),
        (b"data = '\xff'", "expected UTF-8 text, got byte 8"),
        (b"#" * (1 << 20) + b"\n", "more than 1048576 bytes"),
    ],
)
def test_bad_file_says_what_and_where(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path))


def test_several_places_of_data(tmp_path):
    path = write(tmp_path, "data = ['a.tar', 'b.tar']\n")
    config = load_config(path)
    assert config.data == ("a.tar", "b.tar")
    assert load_config(["a.tar", "b.tar"]) == config
    assert load_config(write(tmp_path, dump_config(config))) == config
    assert load_config(["c.tar", "d.tar"], file=path).place == "c.tar, d.tar"
    for wrong in ("[]", "['glyphs', 'a.tar']", "['a.tar', 'a.tar']", "['a.tar', 1]"):
        with pytest.raises(ValueError, match="data: expected"):
            load_config(write(tmp_path, f"data = {wrong}\n"))


def test_unknown_data_set_lists_the_choices(tmp_path):
    with pytest.raises(
        ValueError, match=r"'glyhps': did you mean 'glyphs'\? \(or give .*data sets: glyphs"
    ):
        load_config("glyhps")
    plain = tmp_path / "settings"
    plain.write_text("seed = 1")
    with pytest.raises(ValueError, match=r"expected a data set \(glyphs\) or a .toml file"):
        load_config(plain)


def test_bad_override_and_constructor(tmp_path):
    with pytest.raises(ValueError, match=r"^unknown key 'sed': did you mean 'seed'\?$"):
        load_config("glyphs", {"sed": 1})
    with pytest.raises(ValueError, match=r"^towers: expected at least 2"):
        load_config("glyphs", {"towers": ["name"]})
    with pytest.raises(ValueError, match="towers: expected a list"):
        TrainConfig(towers=["image", "name"])
    with pytest.raises(ValueError, match="limit: expected a number at least 0, got -1"):
        Every(limit=-1)
    with pytest.raises(FileNotFoundError):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("count=3", ("count", 3)),
        (" share = 1e-3 ", ("share", 1e-3)),
        ("label=two words", ("label", "two words")),
        ("label='3'", ("label", "3")),
        ("label=", ("label", "")),
        ("label=a=b", ("label", "a=b")),
        ("count=1\nlabel='x'", ("count", "1\nlabel='x'")),
        ("flag=true", ("flag", True)),
        ("sizes=1,2", ("sizes", [1, 2])),
        ("sizes=[1, 2]", ("sizes", [1, 2])),
        ("sizes=", ("sizes", [])),
        ("other=x", ("other", "x")),
    ],
)
def test_assignment(text, pair):
    assert parse_assignment(text, Every) == pair


@pytest.mark.parametrize("text", ["epochs", "=3", ""])
def test_assignment_without_key_or_value(text):
    with pytest.raises(ValueError, match="expected key=value"):
        parse_assignment(text, Every)
