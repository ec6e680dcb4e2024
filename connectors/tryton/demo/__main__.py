"""`python -m connectors.tryton.demo.__main__ ROOT`: a real Tryton and the people who work in it, led over standard input.

One JSON object a line comes in and one goes out: `{"win": {"name", "customer", "amount"}}` wins a deal as a salesperson does and
answers its opportunity's id; `{"finish": 7}` finishes task 7. The first line out, `{"settings": …}`, is for hub.yaml. What it does
meanwhile stands in `{"progress": …}` lines. It ends with its standard input, and Tryton with it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from connectors.tryton.demo.people import DemoAccess, ProjectMember, play
from connectors.tryton.demo.server import RealTryton
from hub.errors import HubError


def main(root: Path) -> None:
    """Serve until the standard input ends."""
    with RealTryton(root, lambda line, done: _answer({"progress": line, "done": done})) as tryton:
        account = tryton.account()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the hub: this ends with its standard input
        _answer({"settings": account.settings()})
        for line in sys.stdin:
            _answer(_do(account, orjson.loads(line)))


def _do(account: DemoAccess, asked: Mapping[str, Any]) -> dict[str, Any]:
    try:
        if "win" in asked:
            deal = asked["win"]
            return {"won": play(account, deal["name"], deal["customer"], deal["amount"])}
        with ProjectMember(account, account.lead) as member:
            member.finish_task(int(asked["finish"]))
        return {"finished": asked["finish"]}
    except HubError as error:
        return {"error": error.code, "message": error.message()}


def _answer(value: Mapping[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
