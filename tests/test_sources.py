import re
from pathlib import Path

import pytest

from raydex.config import INDEX_NAME
from raydex.errors import ConfigError
from raydex.records import Source
from raydex.sources import index_name, load_document, source_from_url, sources_of

ROOT = Path(__file__).parent.parent


def read(path: Path, text: str) -> tuple[Source, ...]:
    path.write_text(text)
    return sources_of(load_document(path), max_pages=50, max_depth=3, origin=path.name)


def test_a_url_becomes_a_source_named_after_host_and_path():
    source = source_from_url("HTTPS://Docs.Example.org/Guide/index.html#top", max_pages=7, max_depth=2)
    assert source == Source(
        name="docs.example.org-guide", seeds=("https://docs.example.org/Guide/",), max_pages=7, max_depth=2
    )


def test_a_url_without_scheme_is_refused_with_the_one_that_was_probably_meant():
    with pytest.raises(ConfigError, match=re.escape("did you mean https://docs.example.org/3?")):
        source_from_url("docs.example.org/3", max_pages=1, max_depth=1)


@pytest.mark.parametrize("url", ["", "ftp://x.org/", "not a url"])
def test_what_is_no_web_address_is_refused_as_a_source(url):
    with pytest.raises(ConfigError, match=r"is not an http or https URL$"):
        source_from_url(url, max_pages=1, max_depth=1)


def test_the_example_file_in_the_repository_is_valid():
    (source,) = sources_of(load_document(ROOT / "sources.toml"), max_pages=50, max_depth=3, origin="sources.toml")
    assert source.seeds == ("https://docs.python.org/3/",)
    assert source.max_pages == 50


def test_every_field_of_a_source_can_be_set_in_the_file_and_addresses_become_canonical(tmp_path):
    (source,) = read(
        tmp_path / "sources.toml",
        """
        [[source]]
        name = "docs"
        seeds = ["HTTP://x.org:80/docs/index.html", "http://x.org/docs/#again"]
        allow = ["http://X.org/docs"]
        deny = ["http://x.org/docs/./old/"]
        public_url = "https://docs.x.org"
        version = "3.1"
        max_pages = 5
        max_depth = 0
        """,
    )
    assert source == Source(
        name="docs",
        seeds=("http://x.org/docs/",),
        allow=("http://x.org/docs",),
        deny=("http://x.org/docs/old/",),
        public_url="https://docs.x.org/",
        version="3.1",
        max_pages=5,
        max_depth=0,
    )


def test_limits_that_the_file_does_not_give_come_from_the_settings(tmp_path):
    (source,) = read(tmp_path / "sources.toml", '[[source]]\nname = "a"\nseeds = ["http://x.org/"]')
    assert (source.max_pages, source.max_depth) == (50, 3)


def test_settings_tables_are_left_to_the_programs_and_a_file_may_have_no_source(tmp_path):
    assert read(tmp_path / "sources.toml", "[build]\nindex = 'docs'\n[serve]\nport = 9") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sources]", "sources.toml: unknown key 'sources'"),
        ("[source]\nname = 'a'", "under [[source]]"),
        ("[[source]]\nseeds = ['http://x.org/']", "source number 1, name: is missing"),
        ("[[source]]\nname = 'a'", "source 'a', seeds: is missing"),
        ("[[source]]\nname = 'a'\nseeds = []", "source 'a', seeds = []"),
        ("[[source]]\nname = 'a'\nseeds = 'http://x.org/'", "source 'a', seeds = 'http://x.org/'"),
        ("[[source]]\nname = 'a'\nseeds = ['x.org']", "source 'a', seeds.0 = 'x.org': Value error, not an http"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\nmax_pages = '9'", "source 'a', max_pages = '9'"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\nmax_pages = true", "source 'a', max_pages = True"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\nmax_pages = 0", "source 'a', max_pages = 0"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\nseed = 1", "source 'a', seed: unknown key; allowed are"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/b/']\nallow = ['http://x.org/a/']", "is not under `allow`"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\n" * 2, "source 'a', name: is used twice"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_named_with_source_and_key(tmp_path, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        read(tmp_path / "sources.toml", text)


def test_a_syntax_error_is_named_with_file_and_line(tmp_path):
    with pytest.raises(ConfigError, match=r"sources\.toml: .*line 2"):
        read(tmp_path / "sources.toml", "[build]\nindex = \n")


def test_a_missing_sources_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load_document(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://Docs.Python.org/3/", "docs.python.org"),
        ("http://127.0.0.1:8080/docs/", "127.0.0.1-8080"),
        ("http://[::1]:8080/", "1-8080"),
        ("http://[::]/", "index"),
        (f"https://{'a' * 60}.{'b' * 20}.org/", f"{'a' * 60}.bb"),
    ],
)
def test_the_index_is_named_after_the_first_host_in_the_form_an_index_name_has(url, name):
    assert index_name([source_from_url(url, max_pages=1, max_depth=1)]) == name
    assert re.match(INDEX_NAME, name)
