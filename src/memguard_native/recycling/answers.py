"""What a supervisor answers on its control socket: who works, what was replaced; and recycling by
hand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from memguard_native.recycling.reasons import Reason

if TYPE_CHECKING:
    from memguard_native.recycling.processes import WorkerProcess
    from memguard_native.recycling.supervisor import Supervisor

_SCHEMA = 1


def answer(supervisor: Supervisor, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request, ready for JSON."""
    command = request.get("command")
    if command == "workers":
        return {"schema": _SCHEMA, **workers(supervisor)}
    if command == "recycle":
        return {"schema": _SCHEMA, **recycle(supervisor, request.get("number"))}
    return {"schema": _SCHEMA, "error": f"there is no command {command!r}"}


def workers(supervisor: Supervisor) -> dict[str, Any]:
    """The service, its workers by number, the newest recycles and the totals."""
    now = supervisor.clock()
    found = sorted(
        supervisor.workforce.workers.values(), key=lambda one: (one.number, one.generation)
    )
    return {
        "supervisor": {
            "pid": os.getpid(),
            "app": supervisor.settings.app,
            "url": supervisor.url,
            "start": supervisor.template.method,
            "uptime": round(now - supervisor.started_at, 1),
            "wanted": supervisor.wanted,
            "dry_run": supervisor.settings.policy.dry_run,
        },
        "workers": [_worker(one, supervisor, now) for one in found],
        "recycles": [one.to_dict() for one in supervisor.recycles.newest],
        "totals": supervisor.recycles.totals(),
    }


def _worker(worker: WorkerProcess, supervisor: Supervisor, now: float) -> dict[str, Any]:
    page = worker.page
    learnt = page.get("learnt") or {}
    since = worker.ready_at or worker.started_at
    return {
        "number": worker.number,
        "generation": worker.generation,
        "pid": worker.pid,
        "state": str(worker.state),
        "age": round(now - since, 1),
        "reason": worker.drained_for or worker.wish,
        "requests": page.get("requests_of_generation", 0),
        "in_flight": page.get("requests_in_flight", 0),
        "connections": page.get("connections", 0),
        "own_bytes": page.get("own_bytes"),
        "private_bytes": page.get("private_bytes"),
        "max_bytes": supervisor.settings.policy.max_memory,
        "verdict": learnt.get("state") if learnt.get("pid") == worker.pid else None,
        "rate_mb_per_hour": (
            learnt.get("rate_mb_per_hour") if learnt.get("pid") == worker.pid else None
        ),
        "forecast_seconds": page.get("forecast_seconds"),
        "heartbeat_age": page.get("loop_heartbeat_age"),
    }


def recycle(supervisor: Supervisor, number: object) -> dict[str, Any]:
    """Have one worker replaced, or all (None)."""
    if supervisor.settings.policy.dry_run:
        return {"error": "this service runs dry (--dry-run): it replaces nobody"}
    serving = supervisor.workforce.serving
    chosen = [one for one in serving if number is None or one.number == number]
    if not chosen:
        numbers = ", ".join(str(one.number) for one in serving) or "none"
        return {"error": f"no worker {number} is ready; there are: {numbers}"}
    for worker in chosen:
        worker.wishes(Reason.manual, supervisor.clock(), {"by": "hand"})
    return {"asked": sorted(one.number for one in chosen)}
