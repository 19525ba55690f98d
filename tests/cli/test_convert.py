"""`datarax convert` as a user types it."""

import pytest
import typer
from conversion_samples import members, tar_file
from typer.testing import CliRunner

from datarax.cli.convert import convert
from datarax.cli.errors import user_message

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(convert)


def test_convert_says_what_it_did(tmp_path):
    tar_file(tmp_path / "a.tar", [(key, {"txt": key.encode()}) for key in "abc"])
    out = tmp_path / "out"
    options = ["--format", "arrow", "--shard-records", "2"]
    result = CliRunner().invoke(app, [str(tmp_path / "a.tar"), str(out), *options])
    assert (result.exit_code, result.stdout) == (0, f"3 records in 2 shards in {out}\n")
    again = CliRunner().invoke(app, [str(tmp_path / "a.tar"), str(out), "--overwrite"])
    assert (again.exit_code, again.stdout) == (0, f"3 records in 1 shard in {out}\n")


def test_convert_refuses_no_records_in_a_shard(tmp_path):
    result = CliRunner().invoke(app, ["a.tar", str(tmp_path / "out"), "--shard-records", "0"])
    assert result.exit_code == 2


def test_convert_takes_shards_that_a_shell_has_listed_in_their_order(tmp_path):
    for name in "ba":
        tar_file(tmp_path / f"{name}.tar", [(name, {"txt": b"1"})])
    listed = [str(tmp_path / "b.tar"), str(tmp_path / "a.tar")]
    result = CliRunner().invoke(app, [*listed, str(tmp_path / "out")])
    assert result.stdout == f"2 records in 1 shard in {tmp_path / 'out'}\n"
    made = members(tmp_path / "out" / "data-000000.tar")
    assert made == [("b.txt", b"1"), ("a.txt", b"1")]


def test_convert_takes_limits_from_a_config(tmp_path):
    parts = [("a", {"txt": b"short"}), ("b", {"txt": b"a long caption"})]
    tar_file(tmp_path / "a.tar", parts)
    config = tmp_path / "c.toml"
    config.write_text("[limits]\nmember_bytes = 10\n")
    line = [str(tmp_path / "a.tar"), str(tmp_path / "out"), "--config", str(config)]
    assert CliRunner().invoke(app, line).stdout.startswith("1 record in 1 shard")
    assert members(tmp_path / "out" / "data-000000.tar") == [("a.txt", b"short")]
    config.write_text("[fields]\n")
    wrong = CliRunner().invoke(app, line)
    assert wrong.exit_code == 1
    assert user_message(wrong.exception) == f"{config} has no table [limits]"


@pytest.mark.parametrize("name", ["out1.parquet", "a.arrow", "b.TAR.GZ", "c.jsonl"])
def test_convert_makes_no_directory_that_is_called_like_a_shard(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tar_file(tmp_path / "a.tar", [("a", {"txt": b"1"})])
    result = CliRunner().invoke(app, ["a.tar", name])
    stem = name.split(".", 1)[0]
    made = {"out1": "parquet", "a": "arrow"}.get(stem, "tar")
    said = f"`datarax convert a.tar {stem} --format {made}` makes {stem}/data-000000.{made}"
    assert said in user_message(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
    (tmp_path / name).mkdir()  # one that is there is meant
    assert CliRunner().invoke(app, ["a.tar", name]).exit_code == 0


def test_convert_writes_to_no_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tar_file(tmp_path / "a.tar", [("a", {"txt": b"1"})])
    result = CliRunner().invoke(app, ["a.tar", "s3://bucket/out"])
    assert "s3://bucket/out is a URL" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
