"""Asking shard groups, which are Ray Serve deployments, from the threads of a replica.

    RemoteGroups(handles).ask(key, "look", {0: (…), 1: (…)}, within_s) → {0: …, 1: …}, without those that fail

A group that failed is not asked until it has answered a look, of which there is one every second: a query does not wait
for a process that is known to be gone.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import Context
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from raydex.errors import SnapshotNotFound
from raydex.search import SnapshotKey

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S, LOOK_TIMEOUT_S = 1.0, 2.0

AT_HAND_S = 0.02
"""For taking an answer that is here already, after another group has used up the time."""

UNREACHED = (RayError, RayServeException, TimeoutError)


class RemoteGroups:
    """Groups by their numbers. Safe to use from several threads."""

    def __init__(self, handles: Sequence[DeploymentHandle[Any]], *, tries: int = 1) -> None:
        """tries: how often a group is asked that fails before its time is up; one of several processes may be gone."""
        self._handles, self._tries = handles, tries
        self._held: dict[int, frozenset[SnapshotKey] | None] = dict.fromkeys(range(len(handles)), frozenset())
        threading.Thread(target=self._keep_looking, name="shard-groups", daemon=True).start()

    def reached(self, key: SnapshotKey) -> frozenset[int]:
        """Return the groups that had this snapshot when they were last looked at."""
        return frozenset(number for number, keys in self._held.items() if keys and key in keys)

    def ask(
        self, key: SnapshotKey, method: str, arguments: Mapping[int, tuple[Any, ...]], within_s: float
    ) -> Mapping[int, Any]:
        """Call a method in each of these groups at once; return what those gave that answered in time."""
        deadline, found = time.monotonic() + within_s, dict[int, Any]()
        left = {number: of for number, of in arguments.items() if self._held[number] is not None}
        for _ in range(self._tries):
            failed = self._ask_once(key, method, left, deadline, found)
            left = {number: left[number] for number in failed}
        for number in left:
            self._note(number, None)
        return found

    def _ask_once(
        self,
        key: SnapshotKey,
        method: str,
        arguments: Mapping[int, tuple[Any, ...]],
        deadline: float,
        found: dict[int, Any],
    ) -> list[int]:
        """Add what is answered to found; return which groups failed."""
        # outside of the request: when its caller hangs up, Ray Serve cancels what belongs to it, as if the group failed
        asked = {
            number: Context().run(self._handles[number].answer.remote, key, method, *of)
            for number, of in arguments.items()
        }
        failed = []
        for number, response in asked.items():
            try:
                found[number] = response.result(timeout_s=max(AT_HAND_S, deadline - time.monotonic()))
            except SnapshotNotFound as error:  # it is about to open it, or could not
                logger.warning("not reached deployment=%s reason=%s", self._name(number), error)
            except UNREACHED as error:
                response.cancel()  # type: ignore[no-untyped-call]
                logger.warning("not reached deployment=%s reason=%s", self._name(number), error)
                failed.append(number)
        return failed

    def _keep_looking(self) -> None:
        while True:
            asked = {number: handle.held.remote() for number, handle in enumerate(self._handles)}
            deadline = time.monotonic() + LOOK_TIMEOUT_S
            for number, response in asked.items():
                try:
                    left_s = max(AT_HAND_S, deadline - time.monotonic())
                    self._note(number, frozenset(response.result(timeout_s=left_s)))
                except UNREACHED:
                    response.cancel()  # type: ignore[no-untyped-call]
                    self._note(number, None)
            time.sleep(LOOK_INTERVAL_S)

    def _note(self, number: int, held: frozenset[SnapshotKey] | None) -> None:
        """held: the snapshots that it has open; None while it cannot be reached."""
        if (held is None) != (self._held[number] is None):
            if held is None:
                logger.warning("shard group lost deployment=%s", self._name(number))
            else:
                logger.warning("shard group back deployment=%s", self._name(number))
        self._held[number] = held

    def _name(self, number: int) -> str:
        return self._handles[number].deployment_id.name
