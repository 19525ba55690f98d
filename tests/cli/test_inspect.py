"""`datarax inspect` as it is typed, on a small tar."""

import io
import json
import tarfile

import pytest
import typer

from datarax.cli.errors import user_message
from datarax.cli.inspect import inspect
from datarax.pipeline.ledger import Ledger
from datarax.sources.tar import TarSource

FIELDS = """
batch_size = 4
[fields]
score = {from = "json.score", decode = "number"}
"""


@pytest.fixture
def tar(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as out:
        for row in range(6):
            data = json.dumps({"score": row, "name": f"no. {row}"} if row != 2 else {}).encode()
            member = tarfile.TarInfo(f"{row}.json")
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def run(capsys):
    app = typer.Typer()
    app.command()(inspect)
    app.callback()(lambda: None)

    def call(*arguments):
        command = typer.main.get_command(app)
        command.main(["inspect", *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    return call


def test_inferred_fields(run, tar):
    said = run(tar)
    assert "6 records in 1 shard\n6 can be read, 0 cannot" in said
    assert 'name = {from = "json.name", decode = "text", length = 32, missing = "mask"}' in said
    assert "name: of 5 records, 0 share their text with another; different texts: 5" in said


def test_fields_of_a_file_and_a_page(run, tar, tmp_path):
    config, page = tmp_path / "c.toml", tmp_path / "page.html"
    config.write_text(FIELDS)
    said = run(tar, "--config", config, "--html", page)
    assert "5 can be read, 1 cannot" in said
    assert "name" not in said.split("[fields]")[1].split("\n\n")[0]
    assert said.endswith(f"page: {page}\n")
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_limit(run, tar):
    assert "looked at 2 of them\n2 can be read" in run(tar, "--limit", "2")


def test_the_records_of_a_ledger(run, tar, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(FIELDS)
    source = TarSource(tar, fields={"score": {"from": "json.score", "decode": "number"}})
    faults = []
    for row in range(6):
        try:
            source[row]
        except ValueError as error:
            faults.append(error.fault)
    ledger = tmp_path / "quarantine.jsonl"
    Ledger(ledger).add(faults)
    assert "looked at 1 of them\n0 can be read, 1 cannot" in run(
        tar, "--config", config, "--ledger", ledger
    )
    assert "1 can be read, 0 cannot" in run(tar, "--ledger", ledger)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs = 3", "neither a table \\[fields\\] nor \\[limits\\]"),
        ("[fields]\nx = 3", "field 'x': expected a table"),
        ("[limits]\npixel = 3", "there is no limit 'pixel'"),
        ("[fields", "not valid TOML"),
    ],
)
def test_a_wrong_file(run, tar, tmp_path, content, message):
    config = tmp_path / "c.toml"
    config.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        run(tar, "--config", config)
    assert user_message(error.value) is not None


def test_what_is_not_there(run, tar, tmp_path):
    ledger = tmp_path / "quarantine.jsonl"
    ledger.write_text("")
    with pytest.raises(ValueError, match=r"lists no record of .*a\.tar") as error:
        run(tar, "--ledger", ledger)
    assert user_message(error.value) is not None
    with pytest.raises(OSError, match="No such file"):
        run(tar, "--ledger", tmp_path / "other.jsonl")
    with pytest.raises(ValueError, match=r"b\.tar") as error:
        run(tmp_path / "b.tar")
    assert user_message(error.value) is not None
