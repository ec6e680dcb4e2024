"""The home page answers whether all is well, names what needs a person with a way to it, and draws how things flow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
import requests
from sqlalchemy import Connection

from hub.health.rhythm import Rhythm
from hub.health.status import (
    TROUBLE_ORDER,
    Facts,
    HealthLimits,
    HealthState,
    HealthStatus,
    Queue,
    StreamFact,
    Trouble,
    assess,
)
from hub.health.words import DEAL_WON
from hub.ledger import outbox, parked, refused
from hub.web.home import link_of
from schemas.envelope import format_time
from tests.board_events import Deal, event
from tests.board_site import Site, serve

NOW = datetime.now(UTC)
WINS = Deal(1)
INSTANCES = {"crm": "ok", "pm": "ok", "desk": "ok"}
ROW: dict[str, Any] = {
    "kind": "event",
    "code": "HUB-E3140",
    "seen": {"role": "chief", "near": "lead"},
    "place": "rules/won.yaml:5:9",
    "body": b"{}",
    "parked_at": format_time(NOW),
}


def facts(*queues: Queue, **more: Any) -> Facts:
    stream = StreamFact("crm", "deals", NOW - timedelta(seconds=1), 2.0)
    return Facts(NOW, queues=queues, streams=(stream,), instances=INSTANCES, **more)


def late(stage: str = "rules", where: str = "3", **more: Any) -> Queue:
    return Queue(stage, where, 1, NOW - timedelta(seconds=100), "17", **more)  # type: ignore[arg-type]


class Told:
    """How the hub is, as a test says."""

    verdict: HealthStatus | None = None

    def say(self, *queues: Queue, **more: Any) -> None:
        self.verdict = assess(facts(*queues, **more), HealthLimits(), {})


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def site(tmp_path: Any, told: Told) -> Iterator[Site]:
    with serve(tmp_path, runners=False, verdict=lambda: told.verdict, rhythm=Rhythm()) as running:
        yield running


def page(site: Site, path: str = "/", language: str = "zh-CN") -> str:
    answer = requests.get(site.url + path, headers={"Accept-Language": language, "Accept": "text/html"}, timeout=10)
    assert answer.status_code == 200
    return answer.text


def test_all_is_well_and_nothing_needs_anybody(site: Site, told: Told) -> None:
    told.say()
    shown = page(site)
    assert "都在流转" in shown
    assert "没有等您处理的事" in shown
    assert 'id="system-crm"' in shown
    assert "Nothing needs you" in page(site, language="en")
    assert "■" not in shown.partition("近 60 分钟")[0].partition('id="now"')[2]


def test_rules_that_stand_still_are_the_first_sentence_of_every_page(site: Site, told: Told) -> None:
    told.say(late(types={DEAL_WON: 1}))
    for path in ("/", "/boards/tasks", "/boards/deals", "/parked"):
        shown = page(site, path)
        assert '规则处理停滞 <span class="ticks" data-age="100">1 分 40 秒</span>，1 笔赢单在等' in shown, path
    assert "as-of late" in page(site, "/boards/tasks")
    assert "还有收到的事件没有处理到这里" in page(site, "/boards/tasks/as-of") or "看板程序尚未运行" in page(
        site, "/boards/tasks/as-of"
    )
    metrics = requests.get(f"{site.url}/metrics", timeout=10).text
    assert 'hub_stage_oldest_seconds{stage="rules"} 100.0' in metrics
    assert "hub_state 2.0" in metrics
    assert 'hub_stream_age_seconds{instance="crm",stream="deals"} 1.0' in metrics


def test_what_needs_a_person_is_listed_worst_first_with_a_link_each(site: Site, told: Told) -> None:
    def work(conn: Connection) -> None:
        for number in range(3):
            parked.park(conn, {"ref": f"event/e{number}", "subject": f"opportunity/crm/O-{number}", **ROW})
        outbox.record(conn, [WINS.won()], "crm")

    site.ledger.writer.run(work)
    told.say(late("calls", "pm", code="HUB-E4001"), late("boards", "tasks"))
    shown = page(site)
    needs = shown.partition('class="needs"')[2].partition("</ul>")[0]
    assert needs.index('href="/boards/tasks"') < needs.index('href="#system-pm"') < needs.index('href="/parked#')
    assert "停放：" in needs
    assert "chief" in needs
    assert "3 次" in needs
    causes = page(site, "/parked", "en")
    assert "nobody holds the role &#39;chief&#39;" in causes
    assert "hub parked retry --cause" in causes
    assert causes.count("hub parked show") == 3


@pytest.mark.parametrize("kind", [*TROUBLE_ORDER, "system", "busy", "stream", "instance"])
def test_each_trouble_leads_to_a_place_that_is_there(site: Site, told: Told, kind: str) -> None:
    told.say()
    ours = {"instance": "crm"} if kind in ("calls", "system", "busy", "stream", "instance") else {}
    for where in ("processor", "projector", "connectors", "broker", "ledger", "boards", "3"):
        link = link_of(Trouble(kind, HealthState.STALLED, ours, where=where))
        assert link.startswith("/boards/") or f'id="{link[1:]}"' in page(site), (where, link)


def test_refused_pushes_are_listed(site: Site, told: Told) -> None:
    told.say()
    reason = refused.Reason("crm", "HUB-E6101", True)
    site.ledger.writer.run(lambda conn: refused.count(conn, {reason: 2}, NOW))
    shown = page(site)
    assert 'href="/parked#refused"' in shown
    assert 'id="refused"' in page(site, "/parked")


def test_before_the_first_look_the_page_is_there(site: Site) -> None:
    assert "正在查看" in page(site)


def test_a_change_of_the_verdict_is_told_to_open_pages_at_once(site: Site, told: Told) -> None:
    told.say()
    with requests.get(f"{site.url}/live?after={site.live.head}", stream=True, timeout=20) as stream:
        lines = stream.iter_lines(decode_unicode=True)
        told.say(late())
        found: set[str] = set()
        for line in islice(lines, 200):
            found.add(line)
            if {"event: verdict", "event: home", "event: fresh-tasks"} <= found:
                return
    raise AssertionError(found)


def test_the_rhythm_counts_what_is_taken_and_what_is_done_by_instance_and_minute(site: Site) -> None:
    rhythm = Rhythm()
    done = event("hub.command.done", "command/pm/m1", {"type": "task.create"}, case=WINS.won().case)
    recent = format_time(NOW - timedelta(minutes=2))

    def work(conn: Connection) -> None:
        outbox.record(conn, [WINS.won().model_copy(update={"recordedtime": recent})], "crm")
        outbox.record(conn, [done.model_copy(update={"recordedtime": recent})], "hub")

    site.ledger.writer.run(work)
    with site.ledger.reading() as conn:
        rhythm.look(conn, NOW)
        rhythm.look(conn, NOW)
    assert (rhythm.taken(), rhythm.done()) == ({"crm": 1}, {"pm": 1})
    counted = rhythm.by_minute(NOW)
    assert (len(counted), sum(count for _, count in counted), counted[-3][1]) == (60, 1, 1)
    with site.ledger.reading() as conn:
        rhythm.look(conn, NOW + timedelta(hours=2))
    assert rhythm.taken() == {}
