import re
from pathlib import Path

import pytest

from raydex.config import INDEX_NAME
from raydex.errors import ConfigError
from raydex.records import Source
from raydex.sources import check_names, index_name, load_document, loader_source, source_from_url, sources_of
from utils.urls import file_url

ROOT = Path(__file__).parent.parent


def read(path: Path, text: str) -> tuple[Source, ...]:
    path.write_text(text)
    return sources_of(load_document(path), max_pages=50, max_depth=3, origin=str(path))


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
    (tmp_path / "pages.txt").touch()
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
        language = "pt-BR"
        sitemaps = ["http://x.org:80/sitemap.xml", "pages.txt"]
        headers = { X-Team = "docs", Authorization = "Bearer ${DOCS_TOKEN}" }
        basic_auth = "reader:${DOCS_PASSWORD}"
        cookies = "session=${DOCS_SESSION}"
        synonyms = [["k8s", "kubernetes"], ["env var", "environment variable"]]
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
        language="pt-BR",
        sitemaps=("http://x.org/sitemap.xml", file_url(tmp_path / "pages.txt")),
        headers=(("X-Team", "docs"), ("Authorization", "Bearer ${DOCS_TOKEN}")),
        basic_auth="reader:${DOCS_PASSWORD}",
        cookies="session=${DOCS_SESSION}",
        synonyms=(("k8s", "kubernetes"), ("env var", "environment variable")),
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
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\nfolder = '.'", "folder: a source has only one of"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\nsynonyms = [['alone']]", "source 'a', synonyms.0"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\nsynonyms = [['a', ' ']]", "source 'a', synonyms.0.1"),
        ("[[source]]\nname = 'a'\nfolder = 'absent'", "'a', folder = 'absent': Value error, there is no folder"),
        ("[[source]]\nname = 'a'\nfolder = '.'\ncookies = ''", "source 'a', cookies: has no meaning with folder"),
        ("[[source]]\nname = 'a'\nfolder = '.'\nlink_style = 'x'", "source 'a', link_style = 'x': Input should be"),
        ("[[source]]\nname = 'a'\nloader = 'a.b'", "source 'a', loader = 'a.b': String should match"),
        ("[[source]]\nname = 'a'\nloader = 'a:B'\nloader_args = {n = 1}", "source 'a', loader_args.n: Input should be"),
        ("[[source]]\nname = 'a'\nloader = 'a:B'\nallow = []", "source 'a', allow: has no meaning with loader"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\nlink_style = 'bare'", "has no meaning with seeds"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\nlanguage = 'de DE'", "source 'a', language = 'de DE'"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\nsitemaps = ['s.xml']", "there is no file /"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/']\ndeny = ['x*']", "source 'a', deny.0 = 'x*': Value error"),
        ("[[source]]\nname = 'a'\nseeds = ['http://x.org/a/']\nallow = ['http://x.org/*/b']", "is not under `allow`"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_named_with_source_and_key(tmp_path, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        read(tmp_path / "sources.toml", text)


@pytest.mark.parametrize("key", ["basic_auth", "cookies", "headers.Authorization", "headers.cookie"])
def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path, key):
    text = f"[[source]]\nname = 'a'\nseeds = ['http://x.org/']\n{key} = 'hunter2'"
    with pytest.raises(ConfigError, match=rf"source 'a', {key.split('.')[0]}: .*environment variable") as error:
        read(tmp_path / "sources.toml", text)
    assert "hunter2" not in str(error.value)


def test_a_folder_is_named_relative_to_the_file_and_its_parts_relative_to_the_folder(tmp_path):
    (tmp_path / "my docs").mkdir()
    (source,) = read(
        tmp_path / "sources.toml",
        """
        [[source]]
        name = "docs"
        folder = "./my docs"
        allow = ["guide", "**/api/*.md"]
        deny = ["/guide/a b"]
        public_url = "https://x.org/docs"
        link_style = "directory"
        """,
    )
    folder = f"{file_url(tmp_path)}my%20docs/"
    assert source == Source(
        name="docs",
        seeds=(folder,),
        allow=(f"{folder}guide", f"{folder}**/api/*.md"),
        deny=(f"{folder}guide/a%20b",),
        public_url="https://x.org/docs",
        link_style="directory",
        max_pages=50,
        max_depth=3,
    )
    assert index_name([source]) == "my-docs"


def test_a_loader_is_a_source_with_an_address_of_its_own(tmp_path):
    text = (
        "[[source]]\nname = 'My wiki'\nloader = 'acme.loaders:WikiLoader'\nloader_args = {space = 'DOCS', user = 'a'}"
    )
    (source,) = read(tmp_path / "sources.toml", text)
    assert source.seeds == ("loader://My%20wiki/",)
    assert source.loader == "acme.loaders:WikiLoader"
    assert source.loader_args == (("space", "DOCS"), ("user", "a"))
    assert index_name([source]) == "wikiloader"


def test_a_local_folder_on_the_command_line_is_a_source_named_after_it(tmp_path, monkeypatch):
    (tmp_path / "Handbook").mkdir()
    monkeypatch.chdir(tmp_path)
    source = source_from_url("Handbook/.", max_pages=7, max_depth=2)
    assert source == Source(name="handbook", seeds=(f"{file_url(tmp_path)}Handbook/",), max_pages=7, max_depth=2)
    assert index_name([source]) == "handbook"


def test_a_sitemap_on_the_command_line_stands_for_its_folder():
    source = source_from_url("https://x.org/docs/sitemap.xml", max_pages=7, max_depth=2)
    assert (source.seeds, source.sitemaps) == (("https://x.org/docs/",), ("https://x.org/docs/sitemap.xml",))


def test_a_loader_on_the_command_line_is_a_source_named_after_its_class():
    source = loader_source("acme.loaders:WikiLoader", ["space=DOCS", "query=a=b"], max_pages=7, max_depth=2)
    assert source == Source(
        name="wikiloader",
        seeds=("loader://wikiloader/",),
        loader="acme.loaders:WikiLoader",
        loader_args=(("space", "DOCS"), ("query", "a=b")),
        max_pages=7,
        max_depth=2,
    )


@pytest.mark.parametrize(
    ("loader", "arguments", "message"),
    [
        ("acme.loaders.Wiki", [], "--loader acme.loaders.Wiki: write it as package.module:Class"),
        ("os:system('x')", [], "write it as package.module:Class"),
        ("a:B", ["token"], "--loader-arg token: write it as key=value"),
        ("a:B", ["=hunter2"], "--loader-arg : write it as key=value"),
    ],
)
def test_a_loader_that_cannot_be_meant_is_refused(loader, arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        loader_source(loader, arguments, max_pages=1, max_depth=1)


def test_two_sources_of_one_name_are_refused():
    source = source_from_url("https://x.org/?a=1", max_pages=1, max_depth=1)
    with pytest.raises(ConfigError, match=r"command line: source 'x\.org', name: is used twice"):
        check_names([source, source], "command line")


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
