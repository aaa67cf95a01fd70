"""What an operator asks of a running service: to swap now, to roll back.

POST /admin/reload · POST /admin/rollback {"index": "docs"}
"""

import asyncio

from fastapi import APIRouter, Request

from raydex.errors import IndexNotFound, RollbackRefused, SnapshotError
from raydex.lineage import move_live, roll_back
from raydex.serve.access import allowed_indexes
from raydex.serve.engine import Engine
from raydex.serve.queries import Backend, visible_names
from raydex.serve.schemas import ReloadResponse, RollbackRequest, RollbackResponse


def admin_routes(backend: Backend) -> APIRouter:
    router = APIRouter()

    @router.post("/admin/reload", summary="Serve what is live, now")
    async def reload(http: Request) -> ReloadResponse:
        return ReloadResponse(**await _reloaded(backend, allowed_indexes(http.scope)))

    @router.post("/admin/rollback", summary="Make an older snapshot live, and serve it")
    async def rollback(http: Request, request: RollbackRequest) -> RollbackResponse:
        allowed = allowed_indexes(http.scope)
        if request.index not in (names := visible_names(backend.engine, allowed)):
            raise IndexNotFound(request.index, names)
        now, before = await asyncio.to_thread(_roll_back, backend.engine, request.index, request.snapshot_id)
        return RollbackResponse(before=before, snapshot_id=now, **await _reloaded(backend, allowed))

    return router


async def _reloaded(backend: Backend, allowed: frozenset[str] | None) -> dict[str, object]:
    """Follow what is live, of every index; say so of those that the caller may see."""
    plan = await backend.swaps.reload()
    names = visible_names(backend.engine, allowed)
    served = {name: one.manifest.snapshot_id for name, one in backend.engine.indexes.items() if name in names}
    if plan is None:
        return {"snapshot": served, "refused": {}, "pending": sorted(names)}
    refused = {name: reason for name, (_, reason) in plan.refused.items() if name in names}
    pending = [
        name
        for name, target in plan.targets.items()
        if name in names and name not in refused and served.get(name, "") != target.snapshot_id
    ]
    return {"snapshot": served, "refused": refused, "pending": sorted(pending)}


def _roll_back(engine: Engine, name: str, snapshot_id: str) -> tuple[str, str]:
    """Move CURRENT as build_index.py --rollback does; return what is live and what was."""
    index_dir = engine.pull(name)
    try:
        return move_live(index_dir, engine.storage, roll_back, snapshot_id)
    except SnapshotError as error:
        raise RollbackRefused(str(error)) from error
