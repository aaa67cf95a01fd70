"""From flags, environment and file to a frozen table of settings, and from its fields to flags and their help.

default < file ([build] or [serve] in sources.toml) < environment < flag  →  BuildConfig / ServeConfig
"""

import argparse
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from raydex.config.serving import ServeConfig
from raydex.config.tables import BuildConfig
from raydex.errors import ConfigError

ENV_PREFIX = "RAYDEX_"

BESIDE_THE_FILE = ("golden_queries", "golden_qrels")
"""Settings of [build.gate] that name files: in the file of settings relative to it, else to the working folder."""

Config = TypeVar("Config", BuildConfig, ServeConfig)


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of a settings table. path: its place in the table; the flag is the leaf's own name."""

    path: tuple[str, ...]
    info: FieldInfo

    @property
    def flag(self) -> str:
        return "--" + self.path[-1].replace("_", "-")

    @property
    def variable(self) -> str:
        return ENV_PREFIX + "__".join(self.path).upper()

    @property
    def is_list(self) -> bool:
        return get_origin(self.info.annotation) is tuple

    @property
    def type_name(self) -> str:
        if get_origin(self.info.annotation) is Literal:
            return ", ".join(get_args(self.info.annotation))
        if isinstance(self.info.annotation, UnionType):
            return "path or URI"
        kind = get_args(self.info.annotation)[0] if self.is_list else self.info.annotation
        return {str: "text", int: "number", float: "number", bool: "yes/no", Path: "path"}[cast(type, kind)]

    @property
    def is_switch(self) -> bool:
        return self.info.annotation is bool

    @property
    def default_text(self) -> str:
        default = self.info.default
        if self.is_list:
            return ",".join(default) or "none"
        if self.is_switch:
            return "yes" if default else "no"
        return str(default) if default not in ("", Path()) else "none"


def settings_of(table: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Yield every leaf of a settings table, in the order it is written."""
    for name, info in table.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from settings_of(info.annotation, (*prefix, name))
        else:
            yield Setting((*prefix, name), info)


def add_flags(parser: argparse.ArgumentParser, table: type[BaseModel]) -> None:
    """Give the parser one flag per setting, grouped by table; absent flags stay absent from the namespace."""
    groups: dict[tuple[str, ...], Any] = {(): parser.add_argument_group("settings")}
    for setting in settings_of(table):
        section = setting.path[:-1]
        if section not in groups:
            groups[section] = parser.add_argument_group(f"settings: {section[0]}")
        kind: dict[str, Any] = (
            {"action": "store_true"}
            if setting.is_switch
            else {"action": "append" if setting.is_list else "store", "metavar": setting.path[-1].upper()}
        )
        groups[section].add_argument(
            setting.flag,
            dest=".".join(setting.path),
            default=argparse.SUPPRESS,
            **kind,
            help=f"{setting.info.description} [default: {setting.default_text}, env {setting.variable}]".replace(
                "%", "%%"
            ),
        )


def resolve(table: type[Config], flags: Mapping[str, Any], file_values: Mapping[str, Any], file_name: str) -> Config:
    """Return the settings: default < file < environment < flag.

    flags: dotted name → value, other keys are ignored. Raises ConfigError naming each wrong setting, where its value
    came from and what is allowed.
    """
    known = {setting.path: setting for setting in settings_of(table)}
    given_flags = {path: flags[".".join(path)] for path in known if ".".join(path) in flags}
    environment = EnvSettingsSource(
        cast(type[BaseSettings], table),
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        case_sensitive=False,
    )
    if not isinstance(file_values, Mapping):
        raise ConfigError(f"{file_name}: settings must be a table such as [build], found {type(file_values).__name__}")
    try:
        values = _overlay(_overlay(_found_beside(file_values, file_name), environment()), _nested(given_flags))
        return table.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(_explain(e, known, given_flags, file_name) for e in error.errors())
        raise ConfigError(wrong) from None  # pydantic's text, in a traceback, has every value
    except SettingsError as error:  # a variable that names a table of settings, such as RAYDEX_CRAWL
        raise ConfigError(f"environment variable {ENV_PREFIX}…: {error}") from error


def _found_beside(file_values: Mapping[str, Any], file_name: str) -> dict[str, Any]:
    """Return the values of the file, with the files that it names as paths from the working folder."""
    gate = file_values.get("gate")
    if not isinstance(gate, Mapping):
        return dict(file_values)
    folder = Path(file_name).parent
    named = {key: str(folder / gate[key]) for key in BESIDE_THE_FILE if isinstance(gate.get(key), str) and gate[key]}
    return {**file_values, "gate": {**gate, **named}}


def _explain(
    error: Any, known: Mapping[tuple[str, ...], Setting], given_flags: Mapping[tuple[str, ...], Any], file_name: str
) -> str:
    """Say what is wrong; the value only of a setting that is known to be no secret: not of one that is misspelt."""
    path = tuple(str(part) for part in error["loc"])
    setting = known.get(path, Setting(path, FieldInfo(repr=False)))
    if path in given_flags:
        origin = f"flag {setting.flag}"
    elif setting.variable in os.environ:
        origin = f"environment variable {setting.variable}"
    else:
        origin = file_name or "defaults"
    value = f" = {error['input']!r}" if setting.info.repr else ""
    return f"{'.'.join(path)}{value} (from {origin}): {error['msg']}"


def _nested(flat: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
    return tree


def _overlay(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _overlay(dict(merged[key]), value) if both_tables else value
    return merged
