"""How replicas agree on what is served: the Council, a clock that is moved by hand, replicas that report when told."""

import asyncio
from pathlib import Path

import pytest

from raydex.config import ServeConfig
from raydex.serve.swapping import Council, Report, Target

NEW, OLD = "new", "old"


class Replicas:
    """A council, a clock that is moved by hand, and replicas that report when told."""

    def __init__(self, data_dir: Path) -> None:
        self.now = 0.0
        self.data_dir = data_dir
        self.council = Council(
            ServeConfig(data_dir=data_dir, index=("docs",), swap_check_s=1),
            patience_s=60,
            lost_after_s=10,
            clock=lambda: self.now,
        )
        self.live(OLD)

    def live(self, snapshot_id: str) -> None:
        path = self.data_dir / "docs" / "CURRENT"
        path.parent.mkdir(exist_ok=True)
        path.write_text(snapshot_id)
        self.now += 1

    def says(self, member: str, serving: str = OLD, *, prepared: bool = False, refuses: str = "") -> str:
        """Report, and return what the plan is for the index: wait, prepare, commit or refused."""
        report = Report(
            serving={"docs": serving},
            prepared={"docs": self.target} if prepared else {},
            refused={"docs": (self.target, refuses)} if refuses else {},
        )
        self.plan = asyncio.run(self.council.follow(member, report, -1))
        target = self.plan.targets["docs"]
        if "docs" in self.plan.refused:
            return "refused"
        if target.snapshot_id == serving:
            return "wait"
        return "commit" if self.plan.agreed.get("docs") == target and prepared else "prepare"

    @property
    def target(self) -> Target:
        return self.plan.targets["docs"]


@pytest.fixture
def replicas(tmp_path: Path) -> Replicas:
    replicas = Replicas(tmp_path)
    assert [replicas.says(member) for member in "ab"] == ["wait", "wait"]
    replicas.live(NEW)
    assert replicas.says("a") == "prepare"
    return replicas


def test_nobody_commits_before_all_have_prepared_and_then_all_do(replicas):
    assert replicas.says("a", prepared=True) == "prepare"
    assert replicas.says("b") == "prepare"
    assert replicas.says("b", prepared=True) == "commit"
    assert replicas.says("a", prepared=True) == "commit"
    assert replicas.says("a", NEW) == "wait"
    assert replicas.says("b", prepared=True) == "commit"


def test_one_that_refuses_stops_all_until_what_is_live_changes(replicas):
    assert replicas.says("a", prepared=True) == "prepare"
    assert replicas.says("b", refuses="a file is cut") == "refused"
    assert replicas.plan.refused["docs"][1] == "a file is cut"
    assert replicas.says("a", prepared=True) == "refused"
    replicas.now += 1000
    assert replicas.says("a") == "refused"
    replicas.live("newer")
    assert replicas.says("a") == "prepare"
    assert replicas.says("a", prepared=True) == "commit"  # b has not been heard of for long


def test_a_dead_replica_holds_nobody_up(replicas):
    assert replicas.says("a", prepared=True) == "prepare"
    replicas.now += 8
    assert replicas.says("a", prepared=True) == "prepare"
    replicas.now += 2
    assert replicas.says("a", prepared=True) == "commit"


def test_a_slow_replica_is_waited_for_and_then_follows_alone(replicas):
    for _ in range(6):
        replicas.now += 9
        assert replicas.says("b") == "prepare"
        assert replicas.says("a", prepared=True) == "prepare"
    replicas.now += 9
    assert replicas.says("b") == "prepare"
    assert replicas.says("a", prepared=True) == "commit"
    assert replicas.says("b", prepared=True) == "commit"


def test_once_agreed_neither_a_newcomer_nor_a_late_refusal_stops_the_others(replicas):
    replicas.says("a", prepared=True)
    assert replicas.says("b", prepared=True) == "commit"
    assert replicas.says("c") == "prepare"
    assert replicas.says("d", refuses="too late") == "prepare"
    assert replicas.says("a", prepared=True) == "commit"


def test_a_council_that_starts_anew_learns_all_from_the_reports(replicas):
    replicas.says("a", prepared=True)
    fresh = Replicas(replicas.data_dir)
    fresh.live(NEW)
    assert fresh.says("a") == "prepare"
    fresh.says("b")
    assert fresh.says("a", prepared=True) == "prepare"
    assert fresh.says("b", prepared=True) == "commit"


def test_one_that_starts_opens_what_most_others_serve(replicas):
    for member, snapshot_id in zip("abc", (OLD, NEW, NEW), strict=True):
        replicas.says(member, snapshot_id)
    assert asyncio.run(replicas.council.serving()) == {"docs": NEW}
