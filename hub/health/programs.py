"""How the programs of this machine are, by the supervisor's notes and by what the system says of their processes."""

from __future__ import annotations

from pathlib import Path

from hub.health.facts import ProgramFact
from hub.process import is_running, stands_still
from hub.ready import is_ready
from hub.supervisor.run_folder import RunFolder


def programs_here(data: Path, *, expected: bool) -> tuple[bool | None, tuple[ProgramFact, ...]]:
    """Whether a supervisor lives on this machine, and its programs. None: there is none, and none is `expected`."""
    notes = RunFolder(data / "run").notes()
    if not notes:
        return (False if expected else None), ()
    frozen, restarts = notes.get("frozen", ()), notes.get("restarts", {})
    programs = [
        ProgramFact(name, pid, _state(data, name, pid, name in frozen), restarts.get(name, 0))
        for name, pid in notes.get("programs", {}).items()
    ]
    if stands_still(int(notes["pid"])):
        programs.append(ProgramFact("supervisor", int(notes["pid"]), "frozen"))
    return True, tuple(programs)


def _state(data: Path, name: str, pid: int | None, deaf: bool) -> str:
    if pid is None or not is_running(pid):  # the notes of a supervisor that hangs name who has gone
        return "down"
    if deaf or stands_still(pid):
        return "frozen"
    return "ready" if name == "broker" or is_ready(data, name, pid) else "starting"
