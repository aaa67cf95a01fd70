"""Looking after a real index from the command line: what is said, what is changed, and what a build makes of it."""

import json

import pytest

import build_index
from raydex.checkpoint import build_lock
from raydex.snapshot import current_id, list_snapshots, read_manifest
from tests.builder import Builder
from tests.docsite import DocSite, handbook, handbook_paths

PAGES = 16
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("cluster")]


@pytest.fixture
def site():
    with DocSite(handbook(pages=PAGES)) as site:
        yield site


def edit(site, number, words):
    """Add words to a page of the handbook; return its URL."""
    path = handbook_paths(PAGES)[number]
    body = site.route(path).body.decode()
    site.put(path, body.replace("Install the", f"{words} Install the"))
    return site.url + path


def test_diff_names_what_a_build_added_removed_and_changed(build, site):
    _, first = build(site.url)
    edited = edit(site, 5, "Mind the gap.")
    site.put("new.html", "<main><h1 id=a>New</h1><p>Something new was written here for all to read.</p></main>")
    _, second = build(site.url, site.url + "new.html")
    code, line = build("--diff")
    assert code == 0
    assert (line["before"], line["after"]) == (first["snapshot_id"], second["snapshot_id"])
    assert line["pages"] == {"added": 1, "removed": 0, "changed": 1}
    assert line["sections"] == {"added": 1, "removed": 0, "changed": 1}
    assert f"~ page {edited}\n" in build.stdout
    assert f"+ page {site.url}new.html\n" in build.stdout
    code, line = build("--diff", second["snapshot_id"], first["snapshot_id"], "--json")
    changes = [json.loads(text) for text in build.stdout.splitlines()[:4]]
    assert {"kind": "page", "change": "removed", "url": f"{site.url}new.html"} in changes
    assert line["pages"] == {"added": 0, "removed": 1, "changed": 1}
    assert build("--diff", "a", "b", "c")[0] == 2
    assert build("--diff", "nothing")[0] == 1


def test_build_after_a_roll_back_is_the_child_of_what_is_live(build, site):
    _, first = build(site.url)
    edit(site, 5, "Mind the gap.")
    _, second = build(site.url)
    code, line = build("--rollback")
    assert (code, line) == (0, {"snapshot_id": first["snapshot_id"], "before": second["snapshot_id"]})
    code, line = build("--rollforward")
    assert (code, line["snapshot_id"]) == (0, second["snapshot_id"])
    build("--rollback")
    edit(site, 6, "Mind the other gap.")
    _, third = build(site.url)
    assert read_manifest(build.index_dir, third["snapshot_id"]).parent == first["snapshot_id"]
    assert (third["changed_pages"], third["embedded_chunks"] > 0) == (2, True)
    assert build("--rollforward")[0] == 1
    assert "no snapshot after" in build.stderr
    assert build("--verify")[0] == 0
    assert "2 manifests as they were published, up to where the first snapshot is" in build.stdout
    build("--list", "--json")
    rows = [json.loads(text) for text in build.stdout.splitlines()]
    assert [row["live"] for row in rows] == [True, False, False]
    assert [len(row["live_times"]) for row in rows] == [1, 2, 3]
    assert rows[0]["live_times"][0].endswith("– now")
    assert [row["gate"] for row in rows] == ["passed"] * 3


def test_altered_manifest_of_an_ancestor_fails_the_verification_of_its_descendant(build, site):
    _, first = build(site.url)
    build(site.url)
    path = build.index_dir / "snapshots" / first["snapshot_id"] / "manifest.json"
    path.write_text(path.read_text().replace('"cosine"', '"cosine" '))
    assert build("--verify")[0] == 1
    assert "which its child" in build.stdout


def test_rebuild_after_a_collection_embeds_nothing_that_was_known_even_what_is_left_out_as_duplicate(build, site):
    page = handbook_paths(PAGES)[5]
    body = site.route(page).body.decode().replace("<main>", "<main><p><a href='/print/copy.html'>Print view</a></p>")
    site.put(page, body)
    site.put("print/copy.html", body.replace("Install the", "Printed: install the", 1))
    _, first = build(site.url)
    assert first["duplicate_pages"] == 1
    for number in (6, 7, 8):
        edit(site, number, f"Mind gap {number}.")
        build(site.url)
    code, line = build("--gc", "--keep-snapshots", "1", "--grace-s", "0")
    assert code == 0
    assert (len(line["snapshots"]), len(line["kept"])) == (2, 2)
    assert line["objects"] > 0
    assert line["vectors"] > 0
    assert build("--verify")[0] == 0
    _, last = build(site.url)
    assert (last["embedded_chunks"], last["duplicate_pages"]) == (0, 1)


def test_build_keeps_no_more_snapshots_than_asked_for_and_says_what_it_removed(build, site):
    lines = []
    for number in range(4, 8):
        edit(site, number, f"Mind gap {number}.")
        lines.append(build(site.url, "--keep-snapshots", "2", "--grace-s", "0")[1])
    ids = [line["snapshot_id"] for line in lines]
    assert [m.snapshot_id for m in list_snapshots(build.index_dir)] == [ids[3], ids[2]]
    assert [line["freed_bytes"] > 0 for line in lines] == [False, False, True, True]
    assert build.report()["freed"]["snapshots"] == [ids[1]]
    assert build("--verify")[0] == 0


def test_builds_that_are_refused_again_and_again_do_not_pile_up(build, site):
    _, first = build(site.url)
    few = (site.url, "--max-pages", "6", "--keep-snapshots", "1", "--grace-s", "0")
    assert [build(*few)[0] for _ in range(3)] == [5, 5, 5]
    refused, live = list_snapshots(build.index_dir)
    assert live.snapshot_id == current_id(build.index_dir) == first["snapshot_id"]
    assert refused.gate["counts"] != "passed"
    assert build("--verify")[0] == 0


def test_collection_is_refused_while_a_build_runs_and_names_it(build, site):
    build(site.url)
    with build_lock(build.index_dir):
        assert build("--gc")[0] == 6
        assert "being built by pid" in build.stderr
        assert build("--import", "x.raydex")[0] == 6
    assert build("--gc", "--keep-snapshots", "0")[0] == 2
    code, line = build("--gc", "--dry-run")
    assert (code, line["dry_run"], line["snapshots"]) == (0, True, [])


def test_exported_snapshot_is_served_by_another_index_with_the_same_hits(build, site, tmp_path, capsys):
    _, line = build(site.url)
    code, moved = build("--export", str(tmp_path / "docs.raydex"))
    assert code == 0
    assert moved["snapshot_id"] == line["snapshot_id"]
    there = Builder(tmp_path / "there", capsys)
    there.index_dir = tmp_path / "there" / "manual"
    settings = ["--data-dir", str(tmp_path / "there"), "--index", "manual"]
    assert build_index.main(["--import", str(tmp_path / "docs.raydex"), *settings]) == 0
    assert current_id(there.index_dir) == line["snapshot_id"]
    told = [(hit.score, hit.chunk) for hit in build.hits("install the tool", k=10)]
    assert [(hit.score, hit.chunk) for hit in there.hits("install the tool", k=10)] == told
    settings = ["--data-dir", str(tmp_path / "third")]  # the index has the name it had
    assert build_index.main(["--import", str(tmp_path / "docs.raydex"), *settings]) == 0
    assert current_id(tmp_path / "third" / "docs") == line["snapshot_id"]
    capsys.readouterr()
    damaged = tmp_path / "damaged.raydex"
    data = bytearray((tmp_path / "docs.raydex").read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    assert build_index.main(["--import", str(damaged), "--data-dir", str(tmp_path / "fourth")]) == 1
    assert "Nothing was imported" in capsys.readouterr().err
    assert current_id(tmp_path / "fourth" / "docs") == ""
