"""A local folder as a source: which files belong to it, what git and the layout leave out, and how each is read."""

import os
import subprocess

import pytest

from raydex.config import CrawlConfig
from raydex.crawl.folder import list_folder, read_folder_page, scan_folder
from raydex.errors import FetchError, TooLarge
from raydex.records import Source, stable_id
from utils.urls import file_url

CONFIG = CrawlConfig()


def source(folder, **fields):
    return Source(name="docs", seeds=(file_url(folder),), **fields)


def write(folder, *names, text="text"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(folder, **fields):
    return [url.removeprefix(file_url(folder)) for url in list_folder(source(folder, **fields))]


def git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def reason(folder, url):
    with pytest.raises(FetchError) as caught:
        read_folder_page(source(folder), url, CONFIG)
    return caught.value.reason


def test_every_kind_of_document_is_listed_in_a_stable_order_and_nothing_else(tmp_path):
    write(tmp_path, "b.md", "a.HTML", "x/c.rst", "x/d.ipynb", "e.mdx", "f.txt", "g.xhtml", "h.markdown", "i.htm")
    write(tmp_path, "code.py", "data.json", "Makefile", "picture.png")
    found = names(tmp_path)
    assert found == sorted(found)
    assert set(found) == {"b.md", "a.HTML", "x/c.rst", "x/d.ipynb", "e.mdx", "f.txt", "g.xhtml", "h.markdown", "i.htm"}


def test_hidden_files_build_output_and_installed_packages_are_left_out_and_counted(tmp_path):
    write(tmp_path, "a.md", ".git/a.md", ".hidden.md", "node_modules/x/README.md", "_build/html/a.html")
    write(tmp_path, "environment/pyvenv.cfg", "environment/lib/LICENSE.txt")
    listing = scan_folder(source(tmp_path))
    assert [url.rpartition("/")[2] for url in listing.urls] == ["a.md"]
    assert listing.left_out == {"hidden": 2, "build_output": 3}


def test_a_folder_that_is_itself_build_output_is_listed_when_it_is_asked_for(tmp_path):
    write(tmp_path, "_build/html/a.html")
    assert names(tmp_path / "_build" / "html") == ["a.html"]


def test_names_are_percent_encoded_and_found_again(tmp_path):
    write(tmp_path, "100% sure? #1.md", "ünï/ü.md", text="# Sure")
    for url in list_folder(source(tmp_path)):
        assert read_folder_page(source(tmp_path), url, CONFIG).body == b"# Sure"


def test_allow_and_deny_narrow_the_folder_down(tmp_path):
    write(tmp_path, "guide/a.md", "guide/old/b.md", "other.md")
    url = file_url(tmp_path)
    assert names(tmp_path, allow=(f"{url}guide/",)) == ["guide/a.md", "guide/old/b.md"]
    assert names(tmp_path, deny=(f"{url}**/old/**",)) == ["guide/a.md", "other.md"]
    assert scan_folder(source(tmp_path, deny=(f"{url}guide/",))).left_out == {"out_of_scope": 2}


def test_what_git_ignores_is_left_out(tmp_path):
    write(tmp_path, "a.md", "drafts/b.md", "notes.txt", "docs/keep.txt", "docs/site/out.html", "tracked.tmp.md")
    (tmp_path / ".gitignore").write_text("drafts/\n*.txt\n!keep.txt\nsite\n*.tmp.md\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-f", "tracked.tmp.md")
    assert names(tmp_path) == ["a.md", "docs/keep.txt", "tracked.tmp.md"]
    assert names(tmp_path / "docs") == ["keep.txt"]


def test_an_ignored_folder_is_listed_when_it_is_asked_for(tmp_path):
    write(tmp_path, "site/index.html", "site/a/b.html")
    (tmp_path / ".gitignore").write_text("site/\n")
    git(tmp_path, "init", "-q")
    assert names(tmp_path / "site") == ["a/b.html", "index.html"]


def test_nothing_that_a_checkout_configures_is_run(tmp_path):
    write(tmp_path, "a.md")
    marker = tmp_path / "was-run"
    git(tmp_path, "init", "-q")
    script = tmp_path / "run.sh"
    script.write_text(f"#!/bin/sh\ntouch {marker}\n")
    script.chmod(0o755)
    hook = tmp_path / ".git" / "hooks" / "post-index-change"
    hook.write_text(script.read_text())
    hook.chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(script))
    assert names(tmp_path) == ["a.md"]
    assert not marker.exists()


def test_a_broken_checkout_is_a_folder_like_any_other(tmp_path):
    write(tmp_path, "a.md")
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    assert names(tmp_path) == ["a.md"]


def test_without_git_every_document_is_listed(tmp_path, monkeypatch):
    write(tmp_path, "a.md", "b.md")
    (tmp_path / ".gitignore").write_text("b.md\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert names(tmp_path) == ["a.md", "b.md"]


def test_links_that_leave_the_folder_are_refused_when_listing_and_when_reading(tmp_path):
    write(tmp_path, "secret.md", "docs/a.md", "elsewhere/b.md")
    docs = tmp_path / "docs"
    (docs / "link.md").symlink_to(tmp_path / "secret.md")
    (docs / "folder").symlink_to(tmp_path / "elsewhere")
    (docs / "ring.md").symlink_to(docs / "ring.md")
    (docs / "same.md").symlink_to(docs / "a.md")
    assert names(docs) == ["a.md", "same.md"]
    assert scan_folder(source(docs)).left_out == {"link": 3}
    assert reason(docs, file_url(docs / "link.md")) == "forbidden_path"
    assert reason(docs, file_url(docs) + "folder/b.md") == "forbidden_path"
    assert reason(docs, file_url(docs) + "../secret.md") == "forbidden_path"
    assert reason(docs, file_url(docs) + "%2e%2e/secret.md") == "forbidden_path"
    assert reason(docs, file_url(docs / "ring.md")) in {"unreadable", "file_missing"}


def test_a_page_has_the_type_of_its_suffix_and_an_etag_that_changes_with_the_file(tmp_path):
    write(tmp_path, "a.md", text="# Über")
    url = file_url(tmp_path / "a.md")
    page = read_folder_page(source(tmp_path), url, CONFIG)
    assert (page.content_type, page.body.decode(), page.status) == ("text/markdown; charset=utf-8", "# Über", 200)
    assert (page.url, page.crawl_url, page.page_id, page.source) == (url, url, stable_id(url), "docs")
    assert read_folder_page(source(tmp_path), url, CONFIG).etag == page.etag
    os.utime(tmp_path / "a.md", ns=(1, 1))
    assert read_folder_page(source(tmp_path), url, CONFIG).etag != page.etag


def test_hits_cite_the_public_address(tmp_path):
    write(tmp_path, "guide/a.md")
    public = source(tmp_path, public_url="https://docs.example.org/v2/", link_style="html")
    page = read_folder_page(public, file_url(tmp_path / "guide" / "a.md"), CONFIG)
    assert page.url == "https://docs.example.org/v2/guide/a.html"
    assert page.page_id == stable_id(page.url)


@pytest.mark.parametrize(
    ("beside", "variant"),
    [("mkdocs.yml", "mkdocs"), ("docs/.vitepress/config.ts", "vitepress"), ("docs/conf.py", "myst"), ("a.cfg", "")],
)
def test_markdown_says_which_generator_it_is_written_for(tmp_path, beside, variant):
    write(tmp_path, "docs/sub/a.md", "docs/b.rst", beside)
    docs = tmp_path / "docs"
    page = read_folder_page(source(docs), file_url(docs / "sub" / "a.md"), CONFIG)
    assert page.content_type.partition("variant=")[2] == variant
    assert "variant" not in read_folder_page(source(docs), file_url(docs / "b.rst"), CONFIG).content_type


def test_files_that_cannot_be_read_say_why(tmp_path):
    write(tmp_path, "big.md", text="x" * 2000)
    (tmp_path / "folder.md").mkdir()
    os.mkfifo(tmp_path / "pipe.md")
    with pytest.raises(TooLarge):
        read_folder_page(source(tmp_path), file_url(tmp_path / "big.md"), CrawlConfig(max_body_bytes=1024))
    assert reason(tmp_path, file_url(tmp_path / "gone.md")) == "file_missing"
    assert reason(tmp_path, file_url(tmp_path / "pipe.md")) == "forbidden_path"
    assert reason(tmp_path, file_url(tmp_path / "program.py")) == "forbidden_path"
    assert reason(tmp_path, f"{file_url(tmp_path)}folder.md") == "unreadable"
    assert reason(tmp_path, f"{file_url(tmp_path)}a%00.md") in {"unreadable", "file_missing"}


def test_a_missing_folder_is_named(tmp_path):
    gone = Source(name="docs", seeds=(f"{file_url(tmp_path)}gone/",))
    with pytest.raises(FetchError, match="file_missing"):
        list_folder(gone)
