"""A rebuild pays for what changed, and for nothing else: real builds of a site of 200 pages."""

import json
from collections import Counter

import pytest

import build_index
from raydex.snapshot import open_snapshot
from tests.builder import Builder
from tests.docsite import DocSite, handbook, handbook_paths

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PAGES, EDITED = 200, 2  # 1 % of the pages
SHARDS = ("--shards", "16")


@pytest.fixture(scope="module")
def site():
    with DocSite(handbook(pages=PAGES)) as site:
        yield site


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("incremental")


@pytest.fixture
def build(data_dir, capsys, cluster):
    return Builder(data_dir, capsys)


@pytest.fixture
def first(build, site):
    """The first build of the module, made once; later tests go on from what the last one left."""
    if not build.index_dir.exists():
        assert build(site.url, *SHARDS)[0] == 0
    return build


def objects(build: Builder, role: str) -> Counter[str]:
    return Counter(shard.objects[role].sha256 for shard in open_snapshot(build.index_dir).manifest.shards)


def test_rebuild_without_a_change_embeds_nothing_shares_every_shard_and_says_what_it_saved(first, site):
    before = objects(first, "index")
    _, line = first(site.url, *SHARDS)
    assert (line["embedded_chunks"], line["embedded_tokens"]) == (0, 0)
    assert line["reused_chunks"] == line["chunks"]
    assert line["seconds_saved"] > 0
    assert objects(first, "index") == before
    report = first.report()
    assert report["seconds_saved"] == line["seconds_saved"]
    assert report["saved_basis"].split(" tokens/s, ")[1].startswith(("assumed", "measured in"))


def test_edit_of_one_page_in_a_hundred_embeds_no_more_than_its_chunks_as_the_plan_said(first, site):
    for number in range(EDITED):
        site.edit(handbook_paths(PAGES)[11 + 50 * number], "before you start", "some days before you start")
    _, planned = first(site.url, *SHARDS, "--plan")
    before = objects(first, "index")
    _, line = first(site.url, *SHARDS)
    assert 0 < line["embedded_chunks"] <= 0.015 * line["chunks"]
    assert planned["plan"]["chunks_to_embed"] == pytest.approx(line["embedded_chunks"], rel=0.1)
    assert planned["plan"]["tokens_to_embed"] == pytest.approx(line["embedded_tokens"], rel=0.1)
    assert planned["plan"]["basis"]
    assert line["changed_pages"] == EDITED
    assert (before & objects(first, "index")).total() >= 16 - EDITED


def test_other_chunking_fetches_no_page_anew_and_reuses_the_vectors_of_the_chunks_it_leaves_alone(first, site):
    _, line = first(site.url, *SHARDS, "--max-tokens", "48", "--overlap-tokens", "8")
    assert line["not_modified_pages"] == PAGES  # a 304 each, no body
    assert 0 < line["embedded_chunks"] < line["chunks"]
    assert line["reused_chunks"] > 0


def test_other_model_fetches_no_page_anew_and_the_vectors_of_the_first_are_kept(build, tmp_path, capsys):
    build = Builder(tmp_path, capsys)
    with DocSite(handbook(pages=8)) as site:
        build(site.url)
        arguments = [site.url, "--index", "docs", "--data-dir", str(tmp_path), "--model", "all-MiniLM-L6-v2"]
        assert build_index.main(arguments) == 0
        other = json.loads(capsys.readouterr().out.splitlines()[-1])
        _, back = build(site.url)
    assert (other["not_modified_pages"], back["not_modified_pages"]) == (8, 8)
    assert (other["embedded_chunks"], other["reused_chunks"]) == (other["chunks"], 0)
    assert (back["embedded_chunks"], back["reused_chunks"]) == (0, back["chunks"])
