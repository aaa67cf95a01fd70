"""API keys in their file, and as a running service sees them."""

import hmac
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import serve_index
from raydex.errors import ConfigError
from raydex.keys import RELOAD_S, KeyRing, create_key, read_keys, revoke_key


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def let_the_service_look(self) -> None:
        self.now += RELOAD_S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys.json"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any], str]:
    """Return exit code, JSON line and everything printed."""
    code = serve_index.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    return code, json.loads(lines[-1]) if lines else {}, out + err


def test_a_created_key_opens_and_its_file_holds_only_a_hash_for_the_owner_alone(path):
    token, key = create_key(path, "ci", scopes=["search", "admin"], indexes=["docs"])
    assert KeyRing(path).find(token) == key
    assert key.scopes == frozenset({"search", "admin"})
    assert key.indexes == frozenset({"docs"})
    secret = token.split("_", 2)[2]
    assert len(secret) >= 16
    assert token not in path.read_text()
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "sha256" not in repr(key)


def test_what_is_not_the_very_token_opens_nothing(path):
    token, key = create_key(path, "ci")
    other, _ = create_key(path, "other")
    ring = KeyRing(path)
    swapped = f"rdx_{key.key_id}_{other.split('_', 2)[2]}"
    for wrong in (
        "",
        "rdx_",
        token[:-1],
        token + "x",
        token.upper(),
        key.key_id,
        key.sha256,
        swapped,
        "rdx_ü_" + "a" * 43,
    ):
        assert ring.find(wrong) is None, wrong
    assert ring.find(token) == key


def test_the_comparison_takes_the_same_path_for_an_unknown_id_and_a_wrong_secret(path, monkeypatch):
    token, key = create_key(path, "ci")
    ring, compared = KeyRing(path), []

    def compare(left: str, right: str) -> bool:
        compared.append((len(left), len(right)))
        return left == right

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for given in (token, token[:-1] + "?", f"rdx_{key.key_id}_{'a' * 43}", f"rdx_unknown_{'a' * 43}", "nonsense"):
        ring.find(given)
    assert compared == [(64, 64)] * 5


def test_a_running_service_sees_new_and_revoked_keys_when_it_looks_again(path, clock):
    ring = KeyRing(path, clock=clock)
    assert not ring.is_on
    token, key = create_key(path, "ci")
    assert not ring.is_on
    clock.let_the_service_look()
    assert ring.is_on
    assert ring.find(token)
    revoke_key(path, key.key_id)
    assert ring.find(token)
    clock.let_the_service_look()
    assert ring.find(token) is None
    assert ring.is_on


def test_a_deleted_file_closes_the_service_instead_of_opening_it(path, clock):
    token, _ = create_key(path, "ci")
    ring = KeyRing(path, clock=clock)
    path.unlink()
    clock.let_the_service_look()
    assert ring.is_on
    assert ring.find(token) is None


def test_a_file_damaged_while_the_service_runs_leaves_the_keys_in_force_and_is_logged_without_its_content(
    path, clock, caplog
):
    token, _ = create_key(path, "ci")
    ring = KeyRing(path, clock=clock)
    path.write_text('{"format_version": 1, "keys": ["rdx_pasted_by_mistake"]}')
    clock.let_the_service_look()
    assert ring.find(token)
    clock.let_the_service_look()
    assert ring.find(token)
    assert len(caplog.records) == 1
    assert "not a key file of format 1" in caplog.text
    assert "pasted" not in caplog.text


def test_a_service_does_not_start_on_a_damaged_file_or_one_of_a_later_format(path):
    create_key(path, "ci")
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(ConfigError, match="not a key file of format 1"):
        KeyRing(path)


def test_an_expired_key_opens_nothing(path):
    ended, _ = create_key(path, "old", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    valid, _ = create_key(path, "new", expires_at=datetime.now(UTC) + timedelta(days=1))
    ring = KeyRing(path)
    assert ring.find(ended) is None
    assert ring.find(valid)
    assert [key.name for key in ring.usable()] == ["new"]


def test_the_commands_create_list_and_revoke(tmp_path, capsys):
    data = ("--data-dir", tmp_path)
    code, created, shown = command(
        capsys,
        *("--create-key", "ci robot", "--scopes", "search,admin", "--key-indexes", "docs,api", "--expires-days", "30"),
        *("--rate", "5/second", "--quota", "1000/day", *data),
    )
    assert code == 0
    assert shown.count(created["key"]) == 1
    assert created["scopes"] == ["admin", "search"]
    assert created["indexes"] == ["api", "docs"]
    assert KeyRing(tmp_path / "keys.json").find(created["key"])
    days = datetime.fromisoformat(created["expires_at"]) - datetime.fromisoformat(created["created_at"])
    assert round(days / timedelta(days=1)) == 30

    code, listed, shown = command(capsys, "--list-keys", *data)
    assert code == 0
    assert [key["key_id"] for key in listed["keys"]] == [created["key_id"]]
    assert created["key"] not in shown
    assert read_keys(tmp_path / "keys.json")[0].sha256 not in shown
    assert "usable  admin+search  index api,docs  5/second  1000/day  until" in shown

    code, revoked, shown = command(capsys, "--revoke-key", created["key_id"], *data)
    assert (code, revoked["state"]) == (0, "revoked")
    assert KeyRing(tmp_path / "keys.json").find(created["key"]) is None
    assert command(capsys, "--list-keys", *data)[1]["keys"][0]["state"] == "revoked"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--create-key", "ci", "--scopes", "search,write"), "scopes"),
        (("--create-key", ""), "name"),
        (("--create-key", "ci", "--key-indexes", "Docs!"), "no name of an index: Docs!"),
        (("--create-key", "ci", "--key-indexes", ""), "indexes"),
        (("--create-key", "ci", "--rate", "fast"), "rate"),
        (("--create-key", "ci", "--expires-days", "0"), "allowed are more than 0"),
        (("--revoke-key", "nobody"), "there is no key 'nobody'"),
        (("--scopes", "admin"), "--scopes: only with --create-key"),
        (("--list-keys", "--rate", "5/second"), "--rate: only with --create-key"),
    ],
)
def test_a_wrong_command_is_refused_with_exit_2_and_changes_nothing(tmp_path, capsys, arguments, says):
    code, _, shown = command(capsys, *arguments, "--data-dir", tmp_path)
    assert code == 2
    assert says in shown
    assert read_keys(tmp_path / "keys.json") == []


def test_with_a_data_folder_that_is_a_uri_the_file_must_be_named(tmp_path, capsys):
    remote = ("--data-dir", "s3://bucket/prefix", "--work-dir", tmp_path / "work")
    code, _, shown = command(capsys, "--create-key", "ci", *remote)
    assert code == 2
    assert "--keys-file" in shown
    named = tmp_path / "secrets" / "keys.json"
    assert command(capsys, "--create-key", "ci", "--keys-file", named, *remote)[0] == 0
    assert len(read_keys(named)) == 1
