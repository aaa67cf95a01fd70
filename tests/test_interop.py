"""LangChain loaders as sources, against the real ones that need no network and fakes."""

import sys
from types import SimpleNamespace

import pytest

from raydex.config import CrawlConfig
from raydex.errors import ConfigError, FetchError
from raydex.interop import load_documents, pages_of_loader
from raydex.records import Source, stable_id
from utils.urls import file_url

pytestmark = pytest.mark.filterwarnings("ignore:`langchain-community` is being sunset:DeprecationWarning")

SOURCE = Source(name="my loader", seeds=("loader://my%20loader/",))
CONFIG = CrawlConfig(max_body_bytes=1024)
PDF = "https://example.org/manual.pdf"
COMMUNITY = "langchain_community.document_loaders"


class FakeLoader:
    """Yields the documents that `documents` counts, and breaks down after them when it is told to."""

    def __init__(self, *, documents: int, names: list[str] | None = None, error: str = "") -> None:
        self.count, self.names, self.error = documents, names or [], error

    def lazy_load(self):
        for number in range(self.count):
            yield document(f"text {number}", source=(self.names or [""])[number % max(1, len(self.names))])
        if self.error:
            raise RuntimeError(self.error)


class NoLoader:
    pass


def document(text, **metadata):
    return SimpleNamespace(page_content=text, metadata=metadata)


def pages(*documents, source=SOURCE, config=CONFIG):
    problems: list[FetchError] = []
    found = list(pages_of_loader(source, documents, config, on_problem=problems.append))
    return found, [problem.reason for problem in problems]


def page(text, **metadata):
    (found,), problems = pages(document(text, **metadata))
    assert problems == []
    return found


def load(name, **arguments):
    return list(load_documents(f"{COMMUNITY}:{name}", arguments))


def test_a_document_with_a_web_address_is_a_page_under_its_canonical_spelling():
    found = page("text", source="HTTPS://Example.org:443/a/index.html#top", title="A title")
    assert (found.url, found.title, found.source) == ("https://example.org/a/", "A title", "my loader")
    assert (found.page_id, found.content_type) == (stable_id(found.url), "text/plain; charset=utf-8")


@pytest.mark.parametrize("key", ["url", "link", "file_path", "path"])
def test_other_names_of_the_address_are_known(key):
    assert page("text", **{key: "https://example.org/a"}).url == "https://example.org/a"


def test_a_document_without_an_address_has_a_stable_one_of_the_loader():
    first, second, third = pages(document("a"), document("b", source="wiki: Ray Serve"), document("c"))[0]
    assert first.url == "loader://my%20loader/1"
    assert second.url == "loader://my%20loader/wiki%3A%20Ray%20Serve"
    assert third.url == "loader://my%20loader/3"


def test_no_address_that_a_browser_would_run_is_ever_cited():
    assert page("text", source="javascript://x/%0aalert(1)").url.startswith("loader://my%20loader/")
    assert page("text", source="data:text/html,x").url.startswith("loader://my%20loader/")


def test_hits_cite_the_public_address_of_the_source():
    public = Source(name="n", seeds=("loader://n/",), public_url="https://docs.example.org/")
    (found,), _ = pages(document("text", source="wiki"), source=public)
    assert (found.url, found.crawl_url) == ("https://docs.example.org/wiki", "loader://n/wiki")


def test_the_pages_of_a_pdf_are_one_page_with_a_heading_for_each():
    found = pages(*(document(f"# text {n}", source=PDF, page=n) for n in range(3)))[0]
    assert [page.url for page in found] == [PDF]
    assert "Page 1 {#page=1}\n-----" in found[0].body.decode()
    assert found[0].body.decode().index("# text 1") > found[0].body.decode().index("Page 2 {#page=2}")
    assert found[0].content_type.startswith("text/plain")


def test_an_address_that_comes_again_or_grows_too_long_goes_on_as_another_part():
    other = "https://example.org/other?x=1"
    sources = (PDF, other, PDF, other)
    found, _ = pages(*(document("text", source=source) for source in sources))
    assert [page.url for page in found] == [PDF, other, f"{PDF}?part=2", f"{other}&part=2"]
    found, problems = pages(*(document("x" * 400, source=PDF, page=n) for n in range(5)))
    assert [page.url for page in found] == [PDF, f"{PDF}?part=2", f"{PDF}?part=3"]
    assert all(len(page.body) <= CONFIG.max_body_bytes for page in found)
    assert problems == []


def test_a_document_that_is_too_long_or_empty_is_told_and_the_others_stay():
    found, problems = pages(document("x" * 2000, source=PDF), document(" \n"), document("text", source=PDF))
    assert [page.body for page in found] == [b"text"]
    assert problems == ["too_large", "empty"]


def test_documents_are_read_one_at_a_time():
    asked = []

    def documents():
        for number in range(1000):
            asked.append(number)
            yield document("text", source=f"https://example.org/{number}")

    stream = pages_of_loader(SOURCE, documents(), CONFIG)
    next(stream)
    assert len(asked) == 2
    assert sum(1 for _ in stream) == 999


@pytest.mark.parametrize(
    ("text", "metadata", "content_type"),
    [
        ("<!DOCTYPE html><p>x", {}, "text/html"),
        ("  <div>x</div>", {}, "text/html"),
        ("just text", {"content_type": "text/html; charset=utf-8"}, "text/plain"),
        ("# Heading\n\ntext", {}, "text/markdown"),
        ("text", {"content_type": "text/markdown"}, "text/markdown"),
        ("Title\n=====\n", {"source": "https://example.org/a.rst"}, "text/x-rst"),
        ("text", {"source": "https://example.org/a.md"}, "text/markdown"),
        ("1 < 2 and <b> is bold", {}, "text/plain"),
        ("# a comment\nkey: value", {"row": 3}, "text/plain"),
    ],
)
def test_the_type_is_what_the_text_looks_like(text, metadata, content_type):
    assert page(text, **metadata).content_type == f"{content_type}; charset=utf-8"


def test_text_that_no_charset_holds_is_replaced_and_loses_nothing_else():
    assert page("a\ud800b").body == b"a?b"


def test_a_file_is_cited_by_its_url(tmp_path):
    path = tmp_path / "a b.txt"
    path.write_text("text")
    assert page("text", source=str(path)).url == file_url(path)
    assert page("text", source=file_url(path)).url == file_url(path)
    assert page("text", source=str(tmp_path)).url.startswith("loader://")


def test_the_text_loader_of_langchain_is_a_source(tmp_path):
    (tmp_path / "a.txt").write_text("How to open a file.")
    (found,), _ = pages(*load("TextLoader", file_path=str(tmp_path / "a.txt")))
    assert (found.url, found.body) == (file_url(tmp_path / "a.txt"), b"How to open a file.")


def test_the_csv_loader_of_langchain_gives_one_page_with_a_heading_for_each_row(tmp_path):
    (tmp_path / "a.csv").write_text("name,meaning\nport,where to listen\nhost,on which address\n")
    (found,), _ = pages(*load("CSVLoader", file_path=str(tmp_path / "a.csv"), csv_args='{"delimiter": ","}'))
    assert found.body.decode().count("Row ") == 2
    assert "name: host\nmeaning: on which address" in found.body.decode()


def test_the_html_loader_of_langchain_is_a_source(tmp_path):
    (tmp_path / "a.html").write_text("<html><title>Files</title><p>Open them.</p></html>")
    arguments = {"file_path": str(tmp_path / "a.html"), "bs_kwargs": '{"features": "html.parser"}'}
    (found,), _ = pages(*load("BSHTMLLoader", **arguments))
    assert (found.title, found.content_type) == ("Files", "text/plain; charset=utf-8")


def test_arguments_are_json_where_they_may_be_and_text_elsewhere():
    arguments = {"documents": "2", "names": '["https://example.org/a", "https://example.org/b"]'}
    found = list(load_documents(f"{__name__}:FakeLoader", arguments))
    assert [document.metadata["source"][-1] for document in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        ("no_such_package.loaders:Loader", {}, "no_such_package"),
        (f"{COMMUNITY}:NoSuchLoader", {}, "NoSuchLoader"),
        (f"{COMMUNITY}:TextLoader", {"colour": "red"}, "colour"),
        (f"{__name__}:FakeLoader", {}, "documents"),
        (f"{__name__}:NoLoader", {}, "lazy_load"),
    ],
)
def test_a_loader_that_cannot_be_made_is_a_config_error_that_says_what_is_wrong(spec, arguments, message):
    with pytest.raises(ConfigError, match=message):
        load_documents(spec, arguments)


def test_a_package_that_the_loader_misses_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "bs4", None)
    (tmp_path / "a.html").write_text("<p>x")
    with pytest.raises(ConfigError, match=r"bs4|beautifulsoup4"):
        load("BSHTMLLoader", file_path=str(tmp_path / "a.html"))


def test_a_loader_that_breaks_down_keeps_the_pages_before_and_says_what_happened():
    documents = load_documents(f"{__name__}:FakeLoader", {"documents": "2", "error": "the export ended"})
    stream = pages_of_loader(SOURCE, documents, CONFIG)
    assert next(stream).body == b"text 0"
    with pytest.raises(FetchError, match="RuntimeError: the export ended"):
        list(stream)
