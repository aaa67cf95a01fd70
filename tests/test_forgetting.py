"""Which pages `--forget` means. What it does to an index is in test_build_pages.py."""

from dataclasses import replace

import pytest

import build_index
from raydex.build.forgetting import Matcher, forget
from raydex.embed import HashEmbedder
from raydex.snapshot import publish, read_manifest, write_manifest
from tests.snapshots import make_snapshot


@pytest.mark.parametrize(
    ("what", "url", "forgotten"),
    [
        ("https://x.org/a", "https://x.org/a", True),
        ("https://x.org/a", "https://x.org/a/b.html", True),
        ("https://x.org/a", "https://x.org/a?page=2", True),
        ("https://x.org/a", "https://x.org/ab.html", False),
        ("https://x.org/a/", "https://x.org/a/b.html", True),
        ("https://x.org/a/", "https://x.org/a", False),
        ("handbook", "https://x.org/handbook", False),
    ],
)
def test_a_prefix_is_compared_segment_by_segment(what, url, forgotten):
    assert Matcher(what).matches(url, source="docs") is forgotten


def test_the_name_of_a_source_means_all_its_pages():
    assert Matcher("docs").matches("https://x.org/a", source="docs")
    assert not Matcher("docs").matches("https://x.org/a", source="docs-old")


def test_what_was_measured_of_the_indexes_stays_in_the_manifest(tmp_path):
    texts = {f"https://x.org/{name}.html": f"text of {name}" for name in "abc"}
    made = make_snapshot(tmp_path, texts, HashEmbedder(), published=False)
    write_manifest(tmp_path, replace(made, ann_recall=0.995, counts={"pages": 3, "chunks": 3}))
    publish(tmp_path, made.snapshot_id)
    forgotten = forget(tmp_path, "https://x.org/a.html")
    assert (forgotten.pages, forgotten.vectors, forgotten.snapshots) == (1, 0, (made.snapshot_id,))
    assert read_manifest(tmp_path, forgotten.snapshot_id).ann_recall == 0.995


@pytest.mark.parametrize("option", ["--forget", "--every"])
def test_empty_argument_is_a_wrong_setting_and_begins_nothing(tmp_path, capsys, option):
    make_snapshot(tmp_path / "docs", {"https://x.org/a.html": "text"}, HashEmbedder())
    fixed = ["https://x.org/", "--index", "docs", "--data-dir", str(tmp_path), "--ray-address", "nowhere"]
    assert build_index.main([option, "", *fixed]) == 2
    assert option in capsys.readouterr().err
