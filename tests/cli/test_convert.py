"""`datarax convert` as a user types it."""

import typer
from conversion_samples import tar_file
from typer.testing import CliRunner

from datarax.cli.convert import convert

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(convert)


def test_convert_says_what_it_did(tmp_path):
    tar_file(tmp_path / "a.tar", [(key, {"txt": key.encode()}) for key in "abc"])
    out = tmp_path / "out"
    options = ["--format", "arrow", "--shard-records", "2"]
    result = CliRunner().invoke(app, [str(tmp_path / "a.tar"), str(out), *options])
    assert (result.exit_code, result.stdout) == (0, f"3 records in 2 shards in {out}\n")
    again = CliRunner().invoke(app, [str(tmp_path / "a.tar"), str(out), "--overwrite"])
    assert (again.exit_code, again.stdout) == (0, f"3 records in 1 shards in {out}\n")


def test_convert_refuses_no_records_in_a_shard(tmp_path):
    result = CliRunner().invoke(app, ["a.tar", str(tmp_path / "out"), "--shard-records", "0"])
    assert result.exit_code == 2
