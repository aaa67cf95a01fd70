"""Settings: default < file < environment < flag; every wrong one is named with its origin."""

import argparse
from traceback import format_exception

import pytest

from raydex.config import BuildConfig, ServeConfig, Setting, add_flags, resolve, settings_of
from raydex.errors import ConfigError


def flags(table: type[BuildConfig] | type[ServeConfig], *arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_flags(parser, table)
    return vars(parser.parse_args(arguments))


def test_flag_beats_environment_beats_file_beats_default(monkeypatch):
    file_values = {"crawl": {"delay_s": 3, "attempts": 7, "per_host": 9}}
    monkeypatch.setenv("RAYDEX_CRAWL__ATTEMPTS", "6")
    monkeypatch.setenv("RAYDEX_CRAWL__PER_HOST", "8")
    config = resolve(BuildConfig, flags(BuildConfig, "--per-host", "2"), file_values, "sources.toml")
    assert (config.crawl.delay_s, config.crawl.attempts, config.crawl.per_host) == (3.0, 6, 2)
    assert config.crawl.max_depth == BuildConfig().crawl.max_depth


@pytest.mark.parametrize(
    ("arguments", "environment", "file_values", "message"),
    [
        (("--max-pages", "0"), {}, {}, r"crawl\.max_pages = '0' \(from flag --max-pages\).*greater than or equal to 1"),
        ((), {"RAYDEX_SHARDS": "many"}, {}, r"shards = 'many' \(from environment variable RAYDEX_SHARDS\)"),
        ((), {}, {"chunk": {"max_tokens": 3}}, r"chunk\.max_tokens = 3 \(from sources\.toml\)"),
    ],
)
def test_wrong_setting_is_named_with_its_value_and_origin(monkeypatch, arguments, environment, file_values, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        resolve(BuildConfig, flags(BuildConfig, *arguments), file_values, "sources.toml")


@pytest.mark.parametrize(
    ("environment", "file_values", "message"),
    [
        ({"RAYDEX_ACCESS__REDIS_ULR": "rdx_secret"}, {}, "access.redis_ulr (from environment variable RAYDEX_ACCESS__"),
        ({}, {"canary_keys": "rdx_secret"}, "canary_keys (from sources.toml): Extra inputs"),
        ({}, {"access": "rdx_secret"}, "access (from sources.toml): Input should be a valid dictionary"),
        ({}, {"canary_key": ["rdx_secret"]}, "canary_key (from sources.toml): Input should be a valid string"),
    ],
)
def test_the_value_of_a_misspelt_setting_or_of_a_secret_one_is_not_repeated(
    monkeypatch, environment, file_values, message
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        resolve(ServeConfig, {}, file_values, "sources.toml")
    assert str(refused.value).startswith(message)
    assert "rdx_secret" not in "".join(format_exception(refused.value))


def test_several_indexes_may_be_given_as_repeated_flags_or_with_commas(monkeypatch):
    assert resolve(ServeConfig, flags(ServeConfig, "--index", "a", "--index", "b"), {}, "").index == ("a", "b")
    monkeypatch.setenv("RAYDEX_INDEX", "c,d")
    assert resolve(ServeConfig, {}, {}, "").index == ("c", "d")


@pytest.mark.parametrize("table", [BuildConfig, ServeConfig])
def test_every_flag_is_unique_and_documented(table):
    settings = list(settings_of(table))
    assert len({setting.flag for setting in settings}) == len(settings)
    assert all(setting.info.description for setting in settings)


def test_nested_setting_has_a_short_flag_and_a_full_variable():
    setting: Setting = next(s for s in settings_of(BuildConfig) if s.path == ("chunk", "max_tokens"))
    assert (setting.flag, setting.variable) == ("--max-tokens", "RAYDEX_CHUNK__MAX_TOKENS")


def test_resolved_settings_never_change():
    with pytest.raises(ValueError, match="frozen"):
        BuildConfig().shards = 3  # type: ignore[misc]


def test_a_switch_takes_no_value_on_the_command_line_and_one_in_the_environment(monkeypatch):
    parser = argparse.ArgumentParser()
    add_flags(parser, BuildConfig)
    given = vars(parser.parse_args(["--render"]))
    assert resolve(BuildConfig, given, {}, "").crawl.render
    assert not resolve(BuildConfig, {}, {}, "").crawl.render
    monkeypatch.setenv("RAYDEX_CRAWL__RENDER", "yes")
    assert resolve(BuildConfig, {}, {}, "").crawl.render


def test_an_unknown_way_of_discovery_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match=r"unknown: feeds; allowed are links, sitemap, llms\.txt"):
        resolve(BuildConfig, {"crawl.discover": ["links", "feeds"]}, {}, "")


def test_golden_files_are_found_beside_the_file_that_names_them_and_from_the_working_folder_by_a_flag():
    file_values = {"gate": {"golden_queries": "golden.tsv", "golden_qrels": "/srv/golden.qrels"}}
    gate = resolve(BuildConfig, {"gate.golden_k": "5"}, file_values, "conf/sources.toml").gate
    assert (gate.golden_queries, gate.golden_qrels, gate.golden_k) == ("conf/golden.tsv", "/srv/golden.qrels", 5)
    flags = {"gate.golden_queries": "other.tsv"}
    assert resolve(BuildConfig, flags, file_values, "conf/sources.toml").gate.golden_queries == "other.tsv"
