"""Hosts as processes: uneven shards, uneven faults, equal steps, every record exactly once."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from datarax.pipeline import read_ledger

WORKER = Path(__file__).with_name("host_worker.py")
COUNTS = (40, 0, 3, 1, 17)
BAD = {0, 1, 2, 3, 4, 5, 6, 7, 8, 41, 59}  # most of them in the first shard
EPOCHS = 2


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_shards(folder):
    """Tars in which every part of a record says its number; gives the numbers of the good ones."""
    number = 0
    for place, count in enumerate(COUNTS):
        with tarfile.open(folder / f"data-{place}.tar", "w") as tar:
            for _ in range(count):
                array = io.BytesIO()
                np.save(array, np.full(2, number, np.float32))
                text = b"\xff" if number in BAD else str(number).encode()
                add(tar, f"{number}.txt", text)
                add(tar, f"{number}.json", json.dumps({"n": number}).encode())
                if number % 3:
                    add(tar, f"{number}.npy", array.getvalue())
                number += 1
    whole = (folder / "data-4.tar").read_bytes()
    with tarfile.open(folder / "data-4.tar") as tar:
        last = tar.getmembers()[-1]
    (folder / "data-4.tar").write_bytes(whole[: last.offset_data + 3])
    return set(range(number - 1)) - BAD


def run_hosts(folder, hosts):
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, str(WORKER), f"{folder}/data-{{0..4}}.tar"),
                *(str(folder / "quarantine.jsonl"), str(host), str(hosts), str(EPOCHS)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(hosts)
    ]
    try:
        ended = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * hosts, ended
    return [json.loads(out) for out, _ in ended]


@pytest.mark.parametrize("hosts", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_hosts_step_alike_and_share_the_records(tmp_path, hosts):
    good = write_shards(tmp_path)
    steps = run_hosts(tmp_path, hosts)
    total = sum(COUNTS) - 1
    assert {len(given) for given in steps} == {EPOCHS * -(-total // 8)}
    per_epoch = len(steps[0]) // EPOCHS
    for epoch in range(EPOCHS):
        rows = [
            row
            for given in steps
            for step in given[epoch * per_epoch : (epoch + 1) * per_epoch]
            for row in step
        ]
        assert all(len(set(row)) == 1 for row in rows)
        assert sorted(row[0] for row in rows) == sorted(good)
    assert len(list(tmp_path.glob("quarantine*.jsonl"))) == hosts
    faults = read_ledger(tmp_path / "quarantine.jsonl")
    assert sorted(int(fault.key) for fault in faults if fault.row is not None) == sorted(BAD)
    assert [fault.shard for fault in faults if fault.row is None] == [str(tmp_path / "data-4.tar")]
