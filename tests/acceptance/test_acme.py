"""Two hundred won deals through the whole hub: exact counts, whatever is pushed twice, killed, or answered wrongly."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.acme import SECRETS, Sender, deal, environment, shuffled, task_done
from tests.acceptance.outside import Mischief, Outside, Seeded
from tests.acceptance.running import RunningHub, running_hub, until

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ACME = Path(os.environ.get("ACME") or Path(__file__).parents[2] / "hub" / "templates" / "acme").resolve()
"""The home that is run: acme as `hub init --template acme` makes it, or any copy of it."""
DEALS = 200
TASKS = 3
KILLS = int(os.environ.get("KILLS", "2"))
"""kill -9 of each program and of the broker; the full count is 10."""
SEED = int(os.environ.get("SEED", "7"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Acme as it stands, on its default databases."""
    return ACME


def counts(outside: Outside) -> dict[str, int]:
    return {kind: len(outside.of(kind)) for kind in ("projects", "tasks", "messages", "postings")}


def push_all(url: str, bodies: Sequence[bytes], at_once: int = 8) -> None:
    senders = [Sender(url, "crm", SECRETS["CRM_SECRET"]) for _ in range(at_once)]
    with ThreadPoolExecutor(at_once) as pool:
        done = [pool.submit(senders[n % at_once].push, body) for n, body in enumerate(bodies)]
        for one in done:
            one.result()


def finish_tasks(url: str, outside: Outside) -> None:
    """Every task of a project is finished over there, in any order, and each push comes twice."""
    sender = Sender(url, "pm", SECRETS["PM_SECRET"])
    bodies = [task_done(task.id) for task in outside.of("tasks")]
    for body in shuffled(bodies, SEED):
        sender.push(body)


def nothing_doubled(outside: Outside) -> None:
    for kind in ("projects", "tasks", "messages", "postings"):
        assert set(outside.marks(kind).values()) <= {1}, f"{kind} made twice"


def well_made(outside: Outside) -> None:
    """Each project has its three tasks, each task names its project's id over there and the person's account."""
    projects = {made.id for made in outside.of("projects")}
    by_project: dict[str, list[str]] = {project: [] for project in projects}
    for task in outside.of("tasks"):
        by_project[task.body["project"]].append(task.body["title"])
    wanted = ["启动会", "回款计划 880000.10 CNY", "实施方案"]
    assert all(sorted(titles) == wanted for titles in by_project.values())
    assert {task.body["assignee"] for task in outside.of("tasks")} == {"7", "8", "11"}
    assert {message.body["to"] for message in outside.of("messages")} == {"lilei"}


def settles(hub: RunningHub, seconds: float = 60.0) -> None:
    """The audit holds, at the latest when everything has come to rest."""
    report: dict[str, object] = {}

    def holds() -> bool:
        report.update(hub.json("audit"))
        return bool(report["ok"])

    until(holds, seconds, f"hub audit holds: {report}")


def test_two_hundred_deals_give_exact_counts(tmp_path: Path, home: Path) -> None:
    outside = Outside()
    with running_hub(home, tmp_path / "data", environment(outside.url)) as hub:
        small = [deal(1000 + n, amount="99999.99") for n in range(20)]
        push_all(hub.url, shuffled([deal(n) for n in range(DEALS)] + small, SEED))
        until(lambda: counts(outside)["messages"] >= DEALS, 120, "every message is sent")
        assert counts(outside) == {"projects": DEALS, "tasks": DEALS * TASKS, "messages": DEALS, "postings": 0}
        nothing_doubled(outside)
        well_made(outside)
        finish_tasks(hub.url, outside)
        until(lambda: counts(outside)["postings"] >= DEALS, 120, "every project is posted")
        settles(hub)
        refused_pushes_leave_nothing(hub)
        assert counts(outside) == {"projects": DEALS, "tasks": DEALS * TASKS, "messages": DEALS, "postings": DEALS}
        nothing_doubled(outside)
        assert {posting.body["amount"] for posting in outside.of("postings")} == {"880000.10"}
    outside.stop()


def refused_pushes_leave_nothing(hub: RunningHub) -> None:
    crm = Sender(hub.url, "crm", SECRETS["CRM_SECRET"])
    before = hub.json("status")["accepted"]
    forged = {"webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}
    assert crm.once(deal(1), **forged).status_code == 401
    assert crm.once(deal(1), **{"webhook-timestamp": str(int(time.time()) - 3600)}).status_code == 401
    assert crm.once(b"{not json").status_code == 400
    assert crm.once(b'{"pad": "' + b"x" * 1_100_000 + b'"}').status_code == 413
    assert hub.json("status")["accepted"] == before


@dataclass
class Nemesis:
    """Kills each program and the broker so many times, at moments that a seed chooses, while the work goes on."""

    hub: RunningHub
    kills: int
    seed: int
    killed: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """Return when every victim was killed as often as planned."""
        order = random.Random(self.seed)
        victims = [name for name in ("processor", "connectors", "projector", "broker") for _ in range(self.kills)]
        order.shuffle(victims)
        for victim in victims:
            until(lambda victim=victim: self.hub.kill(victim), 60, f"{victim} runs, so that it can be killed")  # type: ignore[misc]
            self.killed[victim] = self.killed.get(victim, 0) + 1
            time.sleep(order.uniform(0.2, 2.5))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)])
def store(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Where ledger and boards are kept."""
    if request.param == "sqlite":
        yield {}
        return
    database: Callable[[], str] = request.getfixturevalue("postgres")
    yield {"HUB_LEDGER": database(), "HUB_BOARDS": database()}


def test_the_same_counts_while_everything_is_killed_and_the_targets_misbehave(
    tmp_path: Path, home: Path, store: dict[str, str]
) -> None:
    mischief: Mischief = Seeded(SEED)
    outside = Outside(mischief)
    with running_hub(home, tmp_path / "data", {**environment(outside.url), **store}) as hub:
        nemesis = Nemesis(hub, KILLS, SEED)
        killing = threading.Thread(target=nemesis.run)
        killing.start()
        push_all(hub.url, shuffled([deal(n) for n in range(DEALS)], SEED), at_once=4)
        killing.join()
        until(lambda: counts(outside)["messages"] >= DEALS, 240, "every message is sent")
        finish_tasks(hub.url, outside)
        until(lambda: counts(outside)["postings"] >= DEALS, 240, "every project is posted")
        settles(hub, 180)
        assert nemesis.killed == dict.fromkeys(("processor", "connectors", "projector", "broker"), KILLS)
        assert counts(outside) == {"projects": DEALS, "tasks": DEALS * TASKS, "messages": DEALS, "postings": DEALS}
        nothing_doubled(outside)
        well_made(outside)
        assert all(outside.calls[kind] > 0 for kind in Seeded(SEED).kinds), outside.calls
        assert hub.run("audit").returncode == 0
    outside.stop()
