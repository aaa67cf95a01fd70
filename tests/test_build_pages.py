"""What becomes of single pages, build after build, on a real Ray cluster: stale, gone, doubled, forgotten, planned."""

import base64
import gzip
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raydex.checkpoint import PageStore
from raydex.embed import HashEmbedder
from raydex.snapshot import current_id, list_snapshots, open_snapshot, stored_objects
from tests.builder import LISTS, urls
from tests.docsite import DocSite, handbook, handbook_paths, own_words, page, question
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("cluster")]

PAGES = 12


def prose(subject: str) -> str:
    """Return 280 words that no other subject has."""
    return " ".join(f"{subject}{number} tells of {subject} storage, {subject} replicas." for number in range(40))


PROSE = prose("sentence")


@pytest.fixture
def site():
    with DocSite(handbook(pages=PAGES)) as site:
        yield site


def sources_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "sources.toml"
    path.write_text(text)
    return str(path)


def test_page_that_fails_stays_with_its_last_good_copy_and_is_named_until_it_has_failed_too_often(build, site):
    settings = (site.url, "--attempts", "1", "--max-failed-share", "0.5", "--stale-builds", "2")
    _, first = build(*settings)
    path = handbook_paths(PAGES)[4]
    site.put(path, "ill", status=503)
    for number in ("1", "2"):
        code, line = build(*settings)
        assert (code, line["stale_pages"], line["failed_pages"], line["pages"]) == (0, 1, 0, PAGES)
        assert line["content_digest"] == first["content_digest"]
        (stale,) = build.report()["stale_pages"]
        assert (stale["url"], stale["reason"], stale["stale_builds"]) == (site.url + path, "http_503", number)
    _, line = build(*settings)
    assert (line["stale_pages"], line["failed_pages"], line["pages"]) == (0, 1, PAGES - 1)
    assert site.url + path not in build.page_urls()


def test_hub_that_fails_does_not_take_the_pages_it_links_to_with_it(build, site):
    build(site.url)
    site.put("guide/index.html", "ill", status=500)
    _, line = build(site.url, "--attempts", "1", "--max-failed-share", "0.5")
    assert line["pages"] == PAGES


def test_stale_pages_count_towards_the_failed_share(build, site):
    build(site.url)
    live = current_id(build.index_dir)
    for path in handbook_paths(PAGES)[3:7]:
        site.put(path, "ill", status=500)
    assert build(site.url, "--attempts", "1")[0] == 3
    assert current_id(build.index_dir) == live


def test_deleted_page_leaves_at_once_and_the_report_says_what_is_new_changed_and_gone(build, site):
    build(site.url)
    gone, changed = handbook_paths(PAGES)[-1], handbook_paths(PAGES)[3]
    site.remove(gone)
    site.edit(changed, "before you start", "long before you start")
    site.edit("guide/index.html", "</ul>", "<li><a href='new.html'>n</a></ul>")
    site.put("guide/new.html", page("New", f"A new page. {PROSE}"))
    _, line = build(site.url)
    assert (line["new_pages"], line["changed_pages"], line["deleted_pages"]) == (1, 2, 1)
    assert line["unchanged_pages"] == PAGES - 3
    found = build.report()["changed_urls"]
    assert found["new"] == [site.url + "guide/new.html"]
    assert found["deleted"] == [site.url + gone]
    assert set(found["changed"]) == {site.url + changed, site.url + "guide/"}


def test_pages_that_nothing_links_to_are_found_in_the_sitemap_and_in_llms_txt(build, site):
    site.put("listed.html", page("Listed", f"Only the sitemap knows this page. {PROSE}"))
    site.put("told.html", page("Told", f"Only llms.txt knows this page. {prose('told')}"))
    entry = f"<url><loc>{site.url}listed.html</loc></url>"
    xml = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entry}</urlset>'
    site.put("maps/all.xml.gz", gzip.compress(xml.encode()), content_type="application/gzip")
    site.put("robots.txt", f"User-agent: *\nDisallow:\nSitemap: {site.url}maps/all.xml.gz\n", content_type="text/plain")
    site.put("llms.txt", f"# Acme\n\n- [Told]({site.url}told.html): a page\n", content_type="text/plain")
    assert build(site.url)[1]["pages"] == PAGES + 2
    assert build(site.url, "--discover", "links")[1]["pages"] == PAGES


def test_page_that_its_sitemap_calls_unchanged_is_not_even_asked_for(build, site):
    entries = "".join(
        f"<url><loc>{site.url}{path}</loc><lastmod>2026-01-01</lastmod></url>" for path in handbook_paths(PAGES)
    )
    site.put("sitemap.xml", f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</urlset>')
    _, first = build(site.url)
    asked = len([path for path in site.requests if path not in LISTS])
    _, second = build(site.url)
    assert len([path for path in site.requests if path not in LISTS]) == asked
    assert build.report()["requests_saved"] == PAGES
    assert second["content_digest"] == first["content_digest"]
    build(site.url, "--lastmod-days", "0")
    assert build.report()["page_origins"] == {"unchanged": PAGES}


def test_site_that_does_not_answer_holds_up_no_other(build, site, tmp_path):
    with DocSite(handbook(pages=8)) as silent:
        silent.block_after(0)
        tables = [f'[[source]]\nname = "{n}"\nseeds = ["{s.url}"]\n' for n, s in (("silent", silent), ("lively", site))]
        others = len(handbook_paths(PAGES)) + 1  # and robots.txt

        def answer_when_the_other_is_done() -> None:
            eventually(lambda: len(site.requests) >= others, within_s=25)
            silent.unblock()

        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(answer_when_the_other_is_done)
            code, line = build("--sources", sources_file(tmp_path, "".join(tables)), "--discover", "links")
            waiting.result()
    assert (code, line["pages"] + line["duplicate_pages"]) == (0, PAGES + 8)


def test_print_view_is_left_out_for_the_page_it_prints_and_named_as_its_copy(build, site):
    path = handbook_paths(PAGES)[3]
    body = site.route(path).body.decode()
    site.put("print/page003.html", body.replace("<h1", f'<link rel="canonical" href="{site.url}{path}"><h1', 1))
    _, line = build(site.url, site.url + "print/page003.html")
    assert (line["pages"], line["duplicate_pages"]) == (PAGES, 1)
    (group,) = build.report()["duplicate_groups"]["pages"]
    assert (group["kept"], group["dropped"]) == (site.url + path, [site.url + "print/page003.html"])
    assert build.hits(question(3))[0].chunk.url.startswith(site.url + path)


def test_addresses_that_were_not_given_are_refused_before_a_connection_is_opened(build, site, tmp_path):
    """127.0.0.2 stands for an address of the internal network that a page links to."""
    site.put("links.html", page("Links", f"{PROSE} <a href='{site.outside_url}secret.html'>internal</a>"))
    allowed = f'allow = ["{site.url}", "{site.outside_url}"]'
    text = f'[[source]]\nname = "docs"\nseeds = ["{site.url}links.html"]\n{allowed}\n'
    code, line = build("--sources", sources_file(tmp_path, text), "--attempts", "1")
    assert (code, line["pages"]) == (0, 1)
    assert not site.outside_was_contacted()
    (problem,) = build.report()["discovery_problems"]
    assert site.outside_url.rstrip("/") in problem
    assert "forbidden_address" in problem


def test_secrets_come_from_the_environment_and_are_written_nowhere(build, site, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCS_PASSWORD", "correct-horse")
    text = f'[[source]]\nname = "docs"\nseeds = ["{site.url}"]\nbasic_auth = "reader:${{DOCS_PASSWORD}}"\n'
    assert build("--sources", sources_file(tmp_path, text))[0] == 0
    sent = base64.b64encode(b"reader:correct-horse").decode()
    assert {headers.get("authorization") for headers in site.headers_seen} >= {f"Basic {sent}"}
    files = [path for path in build.index_dir.rglob("*") if path.is_file()]
    assert not [path for path in files if b"correct-horse" in path.read_bytes() or sent.encode() in path.read_bytes()]
    assert "correct-horse" not in build.stdout + build.stderr
    monkeypatch.delenv("DOCS_PASSWORD")
    assert build("--sources", sources_file(tmp_path, text))[0] == 2
    assert "DOCS_PASSWORD" in build.stderr


def test_plan_says_what_a_build_would_do_and_changes_nothing_that_is_served(build, site):
    code, plan = build(site.url, "--plan")
    assert (code, plan["outcome"], plan["snapshot_id"]) == (0, "planned", "")
    assert current_id(build.index_dir) == ""
    assert plan["plan"]["chunks_to_embed"] == plan["chunks"] > 0
    assert plan["new_pages"] == PAGES
    assert "to embed" in build.stderr
    _, built = build(site.url)
    assert (built["resumed"], built["embedded_chunks"]) == (False, plan["plan"]["chunks_to_embed"])
    path = handbook_paths(PAGES)[3]
    site.edit(path, "before you start", "long before you start")
    _, again = build(site.url, "--plan")
    assert (again["changed_pages"], again["plan"]["chunks_to_embed"]) == (1, 1)
    assert again["not_modified_pages"] == PAGES - 1


def test_forgotten_pages_are_gone_from_the_index_and_from_every_store(build, site):
    build(site.url)
    secret = handbook_paths(PAGES)[5]
    site.edit(secret, "Install the", "Password hunter2. Install the")
    _, line = build(site.url)
    code, _ = build("--forget", site.url + secret)
    assert code == 0
    assert "1 pages forgotten" in build.stdout
    assert current_id(build.index_dir) != line["snapshot_id"]
    assert site.url + secret not in build.page_urls()
    assert len(list_snapshots(build.index_dir)) == 1  # the two that held the page are gone
    assert not any("hunter2" in hit.chunk.text for hit in build.hits("hunter2 password", k=50))
    stored = {stored.page.url for stored in PageStore(build.index_dir / "pages").heads()}
    assert stored == {site.url + path.removesuffix("index.html") for path in handbook_paths(PAGES)} - {
        site.url + secret
    }
    assert build("--verify")[0] == 0
    assert build("--rollback")[0] == 1  # there is nothing to go back to
    referred = set(stored_objects([open_snapshot(build.index_dir).manifest]))
    assert {path.name for path in (build.index_dir / "objects").iterdir()} == referred


def test_forgetting_everything_is_refused_and_touches_nothing(build, site):
    build(site.url)
    live = current_id(build.index_dir)
    assert build("--forget", site.url)[0] == 4
    assert current_id(build.index_dir) == live
    assert build("--verify")[0] == 0


def test_folder_of_many_formats_is_indexed_under_its_public_address(build, tmp_path):
    docs = tmp_path / "handbook"
    (docs / "guide").mkdir(parents=True)
    (docs / "guide" / "start.md").write_text(f"# Start\n\n## Install the Zephyr\n\nRun `pip install zephyr`. {PROSE}\n")
    (docs / "notes.rst").write_text(f"Notes\n=====\n\nThe quokka notes. {prose('quokka')}\n")
    (docs / "plain.txt").write_text(f"A plain file about wombats.\n\n{prose('wombat')}\n")
    cells = [{"cell_type": "markdown", "source": ["# Notebook\n", "Numbats are plotted here."], "metadata": {}}]
    (docs / "book.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    text = (
        '[[source]]\nname = "hb"\nfolder = "handbook"\npublic_url = "https://docs.acme.example/"\nlink_style = "html"\n'
    )
    code, line = build("--sources", sources_file(tmp_path, text))
    assert (code, line["pages"], line["failed_pages"]) == (0, 4, 0)
    best = build.hits("install the zephyr")[0].chunk
    assert best.url == "https://docs.acme.example/guide/start.html#install-the-zephyr"
    (docs / "plain.txt").unlink()
    _, line = build("--sources", sources_file(tmp_path, text), "--max-shrink-share", "1")
    assert (line["pages"], line["deleted_pages"], line["embedded_chunks"]) == (3, 1, 0)


def test_what_a_langchain_loader_yields_is_indexed(build, tmp_path):
    file = tmp_path / "animals.csv"
    file.write_text("name,habitat\nquokka,islands of the west\nnumbat,woodland floors\n")
    code, line = build(
        "--loader", "langchain_community.document_loaders:CSVLoader", "--loader-arg", f"file_path={file}"
    )
    assert code == 0
    assert line["pages"] >= 1
    assert "woodland" in build.hits("numbat habitat woodland")[0].chunk.text


def test_loader_that_fails_half_way_ends_the_build_and_is_named(build, tmp_path):
    code, _ = build("--loader", "langchain_community.document_loaders:CSVLoader", "--loader-arg", "file_path=/nowhere")
    assert code == 3
    assert "loader_failed" in build.stderr


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on this machine")
def test_page_that_needs_javascript_is_reported_and_with_render_indexed(build, site):
    site.put("app/index.html", '<body><div id="root"></div><script src="app.js"></script></body>')
    made = "<main><h1 id=made>Made by a script</h1><p>The wallaby appears in the browser.</p></main>"
    script = f"root.innerHTML = '{made}'"
    site.put("app/app.js", script, content_type="text/javascript")
    build(site.url, site.url + "app/")
    assert urls(build.report()["skipped_pages"], site) == {"app/": "needs_javascript"}
    code, line = build(site.url, site.url + "app/", "--render")
    assert (code, line["pages"]) == (0, PAGES + 1)
    assert build.hits("made by a script the wallaby appears in the browser")[0].chunk.url == site.url + "app/#made"


def test_page_that_kills_its_reader_is_named_and_the_others_are_read(build, site, monkeypatch):
    import ray

    from raydex.build import pipeline, reading, workers

    victim = site.url + handbook_paths(PAGES)[4]

    @ray.remote(max_retries=0)
    def deadly(context, unit, fetched):
        import os

        if any(f.page and f.visit.url == victim for f in fetched):
            os._exit(1)
        return reading.read_unit(context, unit, fetched, workers._tokenizer("hash"))

    monkeypatch.setattr(pipeline, "read_task", deadly)
    code, line = build(site.url, "--max-failed-share", "0.5")
    assert (code, line["pages"], line["failed_pages"]) == (0, PAGES - 1, 1)
    assert urls(build.report()["failed_pages"], site) == {handbook_paths(PAGES)[4]: "worker_died"}


def test_chunk_that_kills_its_embedder_each_time_is_named_with_its_page_and_the_rest_is_kept(build, site, monkeypatch):
    import ray

    from raydex.build import pipeline, workers

    words = own_words(4)[0]

    class DeadlyEmbedder(HashEmbedder):
        def embed_passages(self, texts, token_ids=()):
            if any(f"Install the {words} package" in text for text in texts):
                os._exit(1)
            return super().embed_passages(texts)

    class DeadlyWorker(workers.EmbedWorker):
        _embedder = DeadlyEmbedder()

    monkeypatch.setattr(pipeline, "EmbedActor", ray.remote(max_restarts=-1, max_task_retries=1)(DeadlyWorker))
    code, _ = build(site.url)
    assert code == 1
    assert f"{site.url}{handbook_paths(PAGES)[4]}#install: a chunk of " in build.stderr
    assert "the embedder dies of it" in build.stderr
    monkeypatch.setattr(pipeline, "EmbedActor", workers.EmbedActor)
    code, line = build(site.url)
    assert (code, line["resumed"], line["pages"]) == (0, True, PAGES)
    assert line["reused_chunks"] > 0
