"""`python -m connectors.tryton.demo ROOT`: a real Tryton and its users, controlled over standard input.

It reads one JSON object a line and answers each with one: `{"win": {"name", "customer", "amount"}}` wins a deal as a salesperson
does and returns the opportunity's id; `{"finish": 7}` finishes task 7. Its first line, `{"settings": …}`, is for hub.yaml.
`{"progress": …}` lines report its steps. When its standard input ends, it stops Tryton and exits.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from connectors.tryton.demo.people import DemoAccess, ProjectMember, win_deal
from connectors.tryton.demo.server import RealTryton
from hub.errors import HubError


def main(root: Path) -> None:
    """Run until the standard input ends."""
    with RealTryton(root, lambda line, done: _write_line({"progress": line, "done": done})) as tryton:
        account = tryton.account()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the hub: this ends with its standard input
        _write_line({"settings": account.settings()})
        for line in sys.stdin:
            _write_line(_execute(account, orjson.loads(line)))


def _execute(account: DemoAccess, request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        if "win" in request:
            deal = request["win"]
            return {"won": win_deal(account, deal["name"], deal["customer"], deal["amount"])}
        with ProjectMember(account, account.lead) as member:
            member.finish_task(int(request["finish"]))
        return {"finished": request["finish"]}
    except HubError as error:
        return {"error": error.code, "message": error.message()}


def _write_line(value: Mapping[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
