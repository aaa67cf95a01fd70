"""The build on a real Ray cluster, against a real local site: what is published, refused, reused and reported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import ray

import build_index
from raydex.build import program
from raydex.snapshot import current_id, list_snapshots, open_snapshot, read_manifest
from tests.builder import LISTS, urls
from tests.docsite import DocSite, handbook, handbook_paths, question
from tests.processes import scrape
from tests.waiting import eventually

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("cluster")]


@pytest.fixture
def site():
    with DocSite(handbook(pages=24)) as site:
        yield site


def test_site_is_crawled_published_and_found_by_what_its_pages_say(build, site):
    code, line = build(site.url)
    assert code == 0
    assert line["pages"] == len(handbook_paths(24))
    assert (line["failed_pages"], line["resumed"]) == (0, False)
    manifest = read_manifest(build.index_dir, current_id(build.index_dir))
    assert (line["snapshot_id"], line["content_digest"]) == (manifest.snapshot_id, manifest.content_digest)
    assert line["chunks"] == manifest.counts["chunks"] >= line["sections"] > 60
    assert set(manifest.gate.values()) == {"passed"}
    for number, path in enumerate(handbook_paths(24)[3:], start=3):
        best = build.hits(question(number))[0]
        assert best.chunk.url.startswith(site.url + path + "#")


def test_every_canonical_url_is_fetched_once(build, site):
    build(site.url)
    pages = [path for path in site.requests if path not in LISTS]
    assert len(pages) == len(set(pages)) == 24


def test_index_name_comes_from_the_host_when_none_is_given(site, tmp_path, capsys):
    assert build_index.main([site.url, "--data-dir", str(tmp_path), "--model", "hash", "--max-pages", "3"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (tmp_path / line["index"] / "CURRENT").exists()
    assert line["index"].startswith("127.0.0.1")


def test_page_that_fails_is_counted_named_with_its_reason_and_does_not_end_the_build(build, site):
    bad = ["500", "404", "drop", "huge", "redirect-loop", "redirect-ok", "redirect-out", "binary", "wrong-charset"]
    links = "".join(f'<a href="/fail/{name}">{name}</a> ' for name in [*bad, "robots-denied", "503-then-ok"])
    text = "All that is broken on this site, so that a crawl can show what it does when pages fail one after the other."
    site.put("broken.html", f"<main><h1>Broken links</h1><p>{text} {links}</p></main>")
    code, line = build(site.url, site.url + "broken.html", "--max-failed-share", "0.5", "--attempts", "3")
    assert code == 0
    report = build.report()
    failed = urls(report["failed_pages"], site)
    assert failed.keys() == {"fail/500", "fail/drop", "fail/huge", "fail/redirect-loop-back"}
    assert (failed["fail/500"], failed["fail/huge"]) == ("http_500", "too_large")
    assert failed["fail/redirect-loop-back"] == "redirect_loop"
    assert urls(report["missing_pages"], site) == {"fail/404": "http_404"}
    assert urls(report["skipped_pages"], site) == {"fail/binary": "not_html", "fail/redirect-out": "redirect_outside"}
    assert report["robots_denied"] == [site.url + "fail/robots-denied"]
    assert {page["referrer"] for page in report["missing_pages"]} == {site.url + "broken.html"}
    assert line["failed_pages"] == 4
    assert line["pages"] == 24 + 1 + 3  # redirect target, wrong charset, and the one that came good
    assert site.counts["/fail/503-then-ok"] == 3
    assert "/fail/robots-denied" not in site.requests
    assert not site.outside_was_contacted()


def test_too_many_failed_pages_end_with_3_and_the_live_snapshot_stays(build, site):
    build(site.url)
    live = current_id(build.index_dir)
    for path in handbook_paths(24)[3:13:2]:
        site.put(path, "broken", status=500)
    code, _ = build(site.url, "--attempts", "1")
    assert code == 3
    assert current_id(build.index_dir) == live
    assert build.report()["outcome"] == "failed_pages"
    assert len(build.report()["stale_pages"]) == 5
    assert "http_500: 5" in build.stderr


def test_site_without_text_ends_with_4_and_says_why(build, site):
    site.put("empty/index.html", "<html><body><script>draw()</script></body></html>")
    code, _ = build(site.url + "empty/")
    assert code == 4
    assert "empty: 1" in build.stderr
    assert current_id(build.index_dir) == ""


def test_source_without_one_page_ends_with_4_even_beside_a_good_one(build, site, tmp_path):
    sources = tmp_path / "sources.toml"
    tables = f'[[source]]\nname = "good"\nseeds = ["{site.url}guide/"]\n'
    sources.write_text(f'{tables}[[source]]\nname = "gone"\nseeds = ["{site.url}old/"]\n')
    assert build("--sources", str(sources))[0] == 4
    assert "source gone" in build.stderr
    assert "http_404: 1" in build.stderr


def test_site_whose_robots_txt_cannot_be_had_ends_with_3_and_nothing_else_is_fetched(build, site):
    site.put("robots.txt", "ill", status=500)
    assert build(site.url, "--attempts", "1")[0] == 3
    assert "robots.txt: unreachable" in build.stderr
    assert set(site.requests) == {"/robots.txt"}


def test_damaged_live_manifest_does_not_stand_in_the_way_of_a_rebuild(build, site):
    _, first = build(site.url)
    (build.index_dir / "snapshots" / first["snapshot_id"] / "manifest.json").write_text("{")
    code, second = build(site.url)
    assert (code, second["content_digest"]) == (0, first["content_digest"])
    assert read_manifest(build.index_dir, second["snapshot_id"]).parent == ""


@pytest.mark.parametrize("role", ["index", "chunks", "sections", "pages"])
def test_damaged_file_of_the_live_snapshot_does_not_stand_in_the_way_of_a_rebuild(build, site, role):
    _, first = build(site.url)
    live = read_manifest(build.index_dir, first["snapshot_id"])
    path = build.index_dir / "objects" / live.shards[0].objects[role].sha256
    path.write_bytes(b"PAR1")
    code, second = build(site.url, "--keep-snapshots", "1")
    assert (code, second["content_digest"]) == (0, first["content_digest"])
    assert build("--verify")[0] == 0


def test_resumed_build_takes_what_a_failed_page_says_once_it_answers(build, site, monkeypatch):
    path = handbook_paths(24)[4]
    page = site.route(path)
    site.put(path, "ill", status=500)
    settings = (site.url, "--attempts", "1", "--max-failed-share", "0.5", "--max-shrink-share", "1")
    with monkeypatch.context() as unpublished:
        unpublished.setattr(program, "publish", _killed)
        assert build(*settings)[0] == 1
    site.put(path, page.body)
    asked = site.counts.copy()
    code, line = build(*settings)
    assert (code, line["resumed"], line["pages"], line["failed_pages"]) == (0, True, 24, 0)
    assert {path for path in site.counts if site.counts[path] > asked[path]} - set(LISTS) == {f"/{path}"}
    assert build.hits(question(4))[0].chunk.url.startswith(site.url + path)


def _killed(*_: object) -> None:
    raise RuntimeError("killed before CURRENT moved")


def test_build_killed_after_it_published_is_not_resumed_but_done_anew(build, site):
    _, first = build(site.url)
    (ledger,) = (build.index_dir / "builds").glob("*/ledger.jsonl")
    lines = ledger.read_text().splitlines(keepends=True)
    assert '"end"' in lines[-1]
    ledger.write_text("".join(lines[:-1]))
    _, second = build(site.url)
    assert not second["resumed"]
    assert second["build_id"] != first["build_id"]
    assert build.report()["page_origins"] == {"unchanged": 24}


def test_gate_refuses_a_site_that_shrank_with_5_and_current_does_not_move(build, site):
    build(site.url)
    live = current_id(build.index_dir)
    for path in handbook_paths(24)[8:]:
        site.remove(path)
    code, _ = build(site.url)
    assert code == 5
    assert current_id(build.index_dir) == live
    assert "pages, the live snapshot has 24" in build.stderr
    refused = list_snapshots(build.index_dir)[0]
    assert refused.gate["counts"].startswith("counts: 8 pages")
    assert build(site.url, "--max-shrink-share", "1")[0] == 0


def test_page_of_nothing_but_links_is_skipped_and_its_links_are_followed(build, site):
    links = "".join(f'<li><a href="{path}">{path}</a></li>' for path in handbook_paths(24))
    site.put("all.html", f"<main><ul>{links}</ul></main>")
    code, line = build(site.url + "all.html")
    assert (code, line["pages"]) == (0, 24)
    assert urls(build.report()["skipped_pages"], site) == {"all.html": "navigation_only"}


@pytest.mark.parametrize("arguments", [("--max-pages", "0"), (), ("ftp://127.0.0.1/",), ("--sources", "/nowhere.toml")])
def test_bad_settings_end_with_2(build, arguments):
    assert build(*arguments)[0] == 2
    assert build.stderr.startswith("error: ")


def test_rebuild_without_a_change_asks_conditionally_embeds_nothing_and_has_the_same_digest(build, site):
    _, first = build(site.url)
    _, second = build(site.url)
    assert second["content_digest"] == first["content_digest"]
    assert (second["embedded_chunks"], second["reused_chunks"]) == (0, first["chunks"])
    assert second["reused_pages"] == 24
    assert build.report()["page_origins"] == {"unchanged": 24}
    assert second["snapshot_id"] != first["snapshot_id"]


def test_edited_page_costs_its_own_chunks_and_one_shard(build, site):
    build(site.url, "--shards", "4")
    before = {shard.objects["index"].sha256 for shard in open_snapshot(build.index_dir).manifest.shards}
    path = handbook_paths(24)[5]
    route = site.route(path)
    site.put(path, route.body.decode().replace("before you start", "long before you start"))
    _, line = build(site.url, "--shards", "4")
    after = {shard.objects["index"].sha256 for shard in open_snapshot(build.index_dir).manifest.shards}
    assert line["embedded_chunks"] == 1
    assert len(before & after) == 3


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 128 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk_ends_the_build_with_an_error_that_names_it_and_what_to_do(build, site, small_disk, monkeypatch):
    build.index_dir = small_disk / "docs"
    assert build(site.url)[0] == 1
    assert f"{small_disk}/docs: 0 MiB free, 256 MiB needed" in build.stderr
    monkeypatch.setattr(program, "SMALLEST_BUILD_BYTES", 0)  # past the check: the disk fills up while it is written
    assert build(site.url)[0] == 1
    assert "the same command resumes" in build.stderr
    assert "Traceback" not in build.stderr
    assert current_id(build.index_dir) == ""


def test_number_of_shards_and_units_changes_nothing_but_the_layout(build, site):
    _, one = build(site.url, "--shards", "1")
    texts = [hit.chunk.chunk_id for hit in build.hits(question(7), k=50)]
    _, many = build(site.url, "--shards", "5", "--batch-pages", "3")
    assert (one["shards"], many["shards"]) == (1, 5)
    assert one["content_digest"] == many["content_digest"]
    assert [hit.chunk.chunk_id for hit in build.hits(question(7), k=50)] == texts


def test_index_kind_changes_how_is_searched_and_neither_content_nor_hits(build, site):
    _, exact = build(site.url, "--shards", "2")
    hits = build.hits(question(7), k=50)
    code, line = build(site.url, "--shards", "2", "--index-kind", "rabitq")
    manifest = read_manifest(build.index_dir, line["snapshot_id"])
    assert code == 0
    assert {shard.index_kind for shard in manifest.shards} == {"rabitq"}
    assert manifest.ann_recall >= 0.99
    assert line["content_digest"] == exact["content_digest"]
    assert build.hits(question(7), k=50) == hits


def test_index_that_does_not_find_what_is_wanted_is_exact_instead(build, site):
    code, line = build(site.url, "--index-kind", "rabitq", "--least-recall", "1")
    shards = read_manifest(build.index_dir, line["snapshot_id"]).shards
    assert code == 0
    assert all(shard.recall == 1 for shard in shards)


def test_page_and_depth_limits_hold_and_the_same_pages_are_taken_each_time(build, site):
    _, limited = build(site.url, "--max-pages", "7")
    assert limited["pages"] == 7
    assert build.report()["links_beyond_limits"] > 0
    _, again = build(site.url, "--max-pages", "7", "--batch-pages", "1", "--max-shrink-share", "1")
    assert again["content_digest"] == limited["content_digest"]
    _, shallow = build(site.url, "--max-depth", "0", "--max-shrink-share", "1")
    assert shallow["pages"] == 1


def test_sources_file_may_cite_another_address_than_the_one_crawled(build, site, tmp_path):
    sources = tmp_path / "sources.toml"
    sources.write_text(
        f'[build]\nshards = 2\n[[source]]\nname = "hb"\nseeds = ["{site.url}"]\npublic_url = "https://docs.acme.example/v1/"\n'
    )
    code, line = build("--sources", str(sources))
    assert (code, line["shards"]) == (0, 2)
    assert build.hits(question(3))[0].chunk.url.startswith("https://docs.acme.example/v1/guide/page003.html#")


def test_build_joins_the_cluster_at_an_address_and_leaves_it_running(site, tmp_path, cluster):
    address = cluster.address_info["gcs_address"]
    command = [sys.executable, ROOT / "build_index.py", site.url, "--index", "docs", "--model", "hash"]
    done = subprocess.run(
        [*command, "--data-dir", tmp_path, "--ray-address", address],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # not the folder of the code: the workers must get it all the same
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pages"] == 24
    assert ray.get(ray.put("still here")) == "still here"


def test_counts_of_a_build_are_exported_for_prometheus(build, site, cluster):
    build(site.url)
    service_discovery = Path(cluster.address_info["session_dir"]) / "prom_metrics_service_discovery.json"
    eventually(service_discovery.exists, within_s=60)
    wanted = {"ray_raydex_build_pages", "ray_raydex_build_chunks", "ray_raydex_build_queue"}
    families = eventually(lambda: f if wanted <= set(f := scrape(service_discovery)) else None, within_s=60)
    assert families is not None
    fetched = [
        sample.value
        for sample in families["ray_raydex_build_pages"].samples
        if sample.labels.get("outcome") == "fetched" and sample.labels.get("index") == "docs"
    ]
    assert sum(fetched) >= 24


def test_rollback_makes_the_parent_live_and_verify_finds_a_damaged_file(build, site):
    _, first = build(site.url)
    site.put("new.html", "<main><h1 id=a>New</h1><p>Something new.</p></main>")
    _, second = build(site.url, site.url + "new.html")
    assert current_id(build.index_dir) == second["snapshot_id"]
    assert build("--list")[0] == 0
    assert first["snapshot_id"] in build.stdout
    assert f"* │ {second['snapshot_id']} │" in build.stdout
    assert build("--rollback")[0] == 0
    assert current_id(build.index_dir) == first["snapshot_id"]
    assert build("--rollback", second["snapshot_id"])[0] == 0
    assert build("--verify")[0] == 0
    damaged = (
        build.index_dir
        / "objects"
        / read_manifest(build.index_dir, first["snapshot_id"]).shards[0].objects["chunks"].sha256
    )
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert build("--verify", first["snapshot_id"])[0] == 1
    assert build("--rollback", first["snapshot_id"], "--full")[0] == 1
    assert current_id(build.index_dir) == second["snapshot_id"]
