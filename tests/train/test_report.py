import html.parser
import json
import resource

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from fake_run import HOSTILE, letters

from datarax.train.characters import characters
from datarax.train.report import write_report
from datarax.train.report_gallery import gallery, sample_by_script
from datarax.train.report_plots import curves
from datarax.train.results import result_rows


class Page(html.parser.HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    # Both hostile names are in the galleries: the first row is always a shown hit.
    run = letters(tmp_path_factory.mktemp("runs") / "run", [HOSTILE, f"{HOSTILE} again"])
    path = write_report(run)
    text = path.read_text(encoding="utf-8")
    return run, path, text, Page(text)


def test_it_holds_every_part(written):
    run, path, _, page = written
    assert path == run.path / "report.html"
    headings = (
        "Retrieval",
        "Training",
        "From name to image",
        "From image to name",
        "The shared space",
    )
    for part in (*headings, "Loss", "Temperature", "Learning rate", "Validation recall"):
        assert part in page.text
    for fact in (
        "12,040",
        "image+outline → name",
        "0.451",
        "0.735",
        "0.151",
        "ridge regression",
        "chance",
        "0.412",
    ):
        assert fact in page.text
    assert page.count("svg") == 4 + 3
    assert "hit" in page.text
    assert "miss" in page.text
    assert page.text.count("✓") >= 6


def test_it_needs_no_network_and_no_script(written):
    _, _, text, page = written
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value[:60])
    style = text[text.index("<style") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_names_are_escaped(written):
    _, _, text, page = written
    assert "<script" not in text
    assert HOSTILE in page.text
    assert any(attributes.get("alt") == HOSTILE for _, attributes in page.tags)


def test_it_leaves_nothing_behind(written):
    run, _, _, _ = written
    before, style = sorted(run.path.iterdir()), dict(mpl.rcParams)
    write_report(run)
    assert sorted(run.path.iterdir()) == before
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == style


def test_same_run_same_report(written):
    run, _, text, _ = written
    assert write_report(run).read_text(encoding="utf-8") == text


def test_a_full_disk_keeps_the_old_report(written):
    run, path, text, _ = written
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*report.html"):
            write_report(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text(encoding="utf-8") == text
    assert not list(run.path.glob(".*"))


def test_a_run_without_logs_or_evaluation(tmp_path):
    run = letters(tmp_path / "run")
    (run.path / "metrics.jsonl").unlink()
    (run.path / "timings.jsonl").write_text("")
    assert Page(write_report(run).read_text(encoding="utf-8")).count("svg") == 3
    (run.path / "metrics.jsonl").write_text('{"kind": "train"\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1: not valid JSON"):
        write_report(run)
    (run.path / "evaluation.json").unlink()
    with pytest.raises(ValueError, match="not evaluated yet: run `datarax evaluate"):
        write_report(run)


def test_gallery_marks_right_answers_and_tells_the_rank_of_missed_ones(tmp_path):
    found = characters(letters(tmp_path / "run"), "test")
    n, right = len(found.names), found.table.relevant("name", "image")
    similarity = np.eye(n)
    similarity[3] = -np.arange(n) / n
    similarity[3, 3] = -2.0
    (miss,) = gallery(similarity, right, found, kind="misses", count=4)
    assert miss.name == found.names[3]
    assert [answer.name for answer in miss.answers] == [found.names[i] for i in (0, 1, 2, 4, 5)]
    assert miss.missed is not None
    assert (miss.missed.rank, miss.missed.name, miss.missed.is_right) == (n, found.names[3], True)
    hits = gallery(similarity, right, found, kind="hits", count=4)
    assert [hit.name for hit in hits] == [found.names[i] for i in (0, 14, 26, n - 1)]
    assert all(hit.is_hit and hit.missed is None and hit.answers[0].score == 1 for hit in hits)


def test_equal_names_share_credit(tmp_path):
    found = characters(letters(tmp_path / "run", ["same", "same"]), "test")
    right = found.table.relevant("name", "image")
    similarity = np.eye(len(found.names))[[1, 0, *range(2, len(found.names))]]
    assert gallery(similarity, right, found, kind="misses", count=4) == []


def test_sample_is_script_by_script():
    scripts = ["b", "a", "b", "c", "b", "a", "b"]
    assert sample_by_script(scripts, groups=2, each=2).tolist() == [0, 4, 1, 5]


def test_curves_leave_out_what_was_not_logged():
    assert curves([]) == {}
    plots = curves([{"kind": "train", "step": 0, "loss": 1.0}])
    assert list(plots) == ["Loss"]
    assert "currentColor" in plots["Loss"]
    assert "#010203" not in plots["Loss"]


def test_result_rows_put_baselines_under_ours(tmp_path):
    evaluation = json.loads((letters(tmp_path / "run").path / "evaluation.json").read_text())
    rows = result_rows(evaluation)
    assert [row.method for row in rows[:3]] == ["ours", "ridge regression", "chance"]
    assert rows[0].direction == "image → name"
    assert rows[0].cells == ("0.451", "0.660", "0.735", "2", "0.549")
    assert rows[1].cells == ("0.151", "", "0.390", "", "")
