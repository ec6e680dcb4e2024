"""The web over real HTTP, with a log in memory behind it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import pytest
import requests

from hub.ledger import outbox, parked
from hub.projector import registry
from hub.projector.store import BoardStore
from tests.away_places import Away
from tests.board_events import Deal, eventually
from tests.board_site import Site, serve

DEAL, OWN = Deal(1), Deal(2, minutes=5, instance="own")
PAGES = (
    "/",
    "/parked",
    "/boards/tasks",
    "/boards/deals",
    "/boards/inbox",
    "/why/task/pm/100",
    "/why/opportunity/crm/O-1",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serve(tmp_path_factory.mktemp("site")) as running:
        won = DEAL.won()
        running.ledger.writer.run(lambda conn: outbox.record(conn, [won], "crm"))
        running.relay.send([*DEAL.story(), *OWN.story()])
        eventually(lambda: settled(running))
        yield running


def settled(site: Site) -> bool:
    want = sum(site.relay.last.values())
    return all(sum(p.next_offset for p in site.store.places(name).values()) == want for name in registry.projections())


def get(site: Site, path: str, **headers: str) -> requests.Response:
    return requests.get(site.url + path, headers=headers, timeout=10, allow_redirects=False)


def post(site: Site, path: str, data: dict[str, str], person: str = "", **headers: str) -> requests.Response:
    cookies = {"person": person.replace("/", "%2F")} if person else {}
    sent = {"Origin": site.url, **headers}
    return requests.post(site.url + path, data=data, headers=sent, cookies=cookies, timeout=10, allow_redirects=False)


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("language", ["zh-CN", "en"])
def test_every_page_in_both_languages(site: Site, path: str, language: str) -> None:
    answer = get(site, path, **{"Accept-Language": language, "Accept": "text/html"})
    assert answer.status_code == 200
    assert f'<html lang="{language}">' in answer.text
    assert answer.headers["content-type"].startswith("text/html")


def test_the_language_asked_for_is_kept(site: Site) -> None:
    session = requests.Session()
    assert 'lang="en"' in session.get(f"{site.url}/boards/tasks?lang=en", timeout=10).text
    assert '<html lang="en">' in session.get(f"{site.url}/boards/deals", timeout=10).text


def test_every_answer_carries_the_strict_headers(site: Site) -> None:
    for path in (*PAGES, "/nope", "/api/tasks", "/static/app.css", "/health"):
        headers = get(site, path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_pages_hold_nothing_inline(site: Site) -> None:
    for path in PAGES:
        text = get(site, path).text
        assert " style=" not in text
        assert "<style" not in text
        assert " onclick" not in text
        assert text.count("<script") == text.count("<script src=")


def test_what_is_large_is_compressed_and_what_is_static_is_kept(site: Site) -> None:
    page = get(site, "/boards/tasks", **{"Accept-Encoding": "gzip"})
    assert page.headers["content-encoding"] == "gzip"
    assert page.headers["cache-control"] == "no-store"
    assert "immutable" in get(site, "/static/vendor/htmx.min.js").headers["cache-control"]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "",
        "127.0.0.1:80@evil",
        "[::1]x:1",
        "localhost:",
    ],
)
def test_a_foreign_host_is_refused(site: Site, host: str) -> None:
    answer = get(site, "/boards/tasks", Host=host)
    assert answer.status_code == 421
    assert answer.json()["code"] == "HUB-E7103"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8600", "[::1]:8600", "127.0.0.1:1"])
def test_our_own_names_are_not(site: Site, host: str) -> None:
    assert get(site, "/boards/tasks", Host=host).status_code == 200


def test_tasks_for_programs(site: Site) -> None:
    told = get(site, "/api/tasks").json()
    assert told["total"] == 6
    assert told["late"] is False
    first = next(item for item in told["items"] if item["ref"] == "task/pm/100")
    assert (first["state"], first["title"], first["assignee"], first["due"]) == (
        "created",
        "启动会",
        "person/li.lei",
        "2026-11-24",
    )
    assert first["why"]["rule"] == "won-deal-to-delivery"
    assert first["why"]["matched"] == {"event.data.amount": "880000"}
    assert first["why"]["event"] == DEAL.won().id
    assert first["why"]["effect"] == "task/pm/100"
    assert get(site, "/api/tasks?instance=own").json()["total"] == 3
    assert len(get(site, "/api/tasks?limit=2&offset=5").json()["items"]) == 1


def test_the_view_of_an_entity_names_each_source(site: Site) -> None:
    told = get(site, "/api/view/opportunity/crm/O-1").json()
    assert told["data"]["amount"] == "880000"
    assert told["stage"] == "won"
    assert told["sources"]["amount"] == {"source": "/connectors/crm", "time": DEAL.won().time}


def test_an_event_as_it_was_recorded(site: Site) -> None:
    assert get(site, f"/api/events/{DEAL.won().id}").json()["type"] == "crm.opportunity.won"


@pytest.mark.parametrize(
    "path", ["/api/view/opportunity/crm/none", "/api/events/none", "/api/nope", "/boards/nope.json"]
)
def test_what_is_not_there_is_a_problem(site: Site, path: str) -> None:
    answer = get(site, path, **{"Accept-Language": "en"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (told["code"], told["status"], told["type"]) == ("HUB-E7101", 404, "urn:hub:error:HUB-E7101")
    assert told["title"].startswith("there is no such page")


def test_a_wrong_parameter_is_named(site: Site) -> None:
    told = get(site, "/api/tasks?limit=many").json()
    assert (told["status"], told["code"]) == (400, "HUB-E7102")
    assert "limit" in told["title"]


def test_a_missing_page_is_a_page_for_people(site: Site) -> None:
    answer = get(site, "/nope", Accept="text/html")
    assert answer.status_code == 404
    assert "HUB-E7101" in answer.text
    assert "<html" in answer.text


@pytest.mark.parametrize("name", registry.boards())
def test_every_board_as_json_and_csv(site: Site, name: str) -> None:
    items = get(site, f"/boards/{name}.json").json()["items"]
    table = get(site, f"/boards/{name}.csv")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert table.content.decode("utf-8-sig").splitlines()[0] == ",".join(["ref", *registry.boards()[name].fields])
    assert len(items) == {"tasks": 6, "deals": 2, "inbox": 0}[name]


def test_a_filter_stands_in_the_address(site: Site) -> None:
    assert len(get(site, "/boards/tasks.json?case_id=opportunity/crm/O-1").json()["items"]) == 3
    page = get(site, "/boards/tasks?assignee=person/li.lei", Accept="text/html").text
    assert "parts/created?assignee=person%2Fli.lei" in page
    assert get(site, "/boards/tasks.json?title=' OR 1=1 --").json()["items"] != []  # no such filter: passed over


def test_the_story_follows_a_request_to_its_task(site: Site) -> None:
    request = f"/why/request/pm/{DEAL.command(0)}"
    assert get(site, request).headers["location"] == "/why/task/pm/100"
    assert get(site, f"/why/command/pm/{DEAL.command(0)}").headers["location"] == "/why/task/pm/100"
    story = get(site, "/why/task/pm/100.json").json()
    assert story["source"]["id"] == DEAL.won().id
    assert list(story["steps"]) == ["requested", "created"]
    assert [each["key"] for each in story["beside"]] == ["task/pm/100", "task/pm/101", "task/pm/102"]


def test_the_state_of_it(site: Site) -> None:
    eventually(lambda: get(site, "/health").status_code == 200)
    told = get(site, "/metrics").text
    assert 'hub_board_unreadable_total{board="tasks"} 0.0' in told
    assert "hub_live_tabs" in told
    paths = get(site, "/openapi.json").json()["paths"]
    assert {"/api/tasks", "/api/view/{entity}/{id}", "/api/events/{id}", "/health"} <= set(paths)


def recorded(site: Site, ref: str) -> list[Any]:
    with site.ledger.reading() as conn:
        return list(outbox.of_subject(conn, ref))


def seen_of(site: Site, ref: str) -> str:
    page = get(site, "/boards/tasks", Accept="text/html").text
    form = page.index(f'action="/tasks/{ref}/accept"')
    return page[page.index('value="', form) + 7 :].partition('"')[0]


def test_a_button_is_one_event_however_often_it_is_pressed(site: Site) -> None:
    ref = OWN.task(0)
    seen = seen_of(site, ref)
    for _ in range(3):
        answer = post(
            site, f"/tasks/{ref}/accept", {"seen": seen}, "person/li.lei", Referer=f"{site.url}/boards/tasks?x=1"
        )
        assert answer.status_code == 303
        assert answer.headers["location"] == "/boards/tasks?x=1"
    (row,) = recorded(site, ref)
    assert (row.type, row.case_id, row.instance) == ("work.task.accepted", OWN.case, "own")
    assert b'"actor":"person/li.lei"' in row.body
    assert b'"data":{"by":"person/li.lei"}' in row.body


def test_a_button_on_an_old_page_is_refused_and_nothing_happens(site: Site) -> None:
    ref = OWN.task(1)
    answer = post(site, f"/tasks/{ref}/accept", {"seen": "0" * 16}, "person/li.lei")
    assert (answer.status_code, answer.json()["code"]) == (409, "HUB-E7105")
    assert recorded(site, ref) == []


@pytest.mark.parametrize("person", ["", "person/nobody"])
def test_who_is_not_known_cannot_act(site: Site, person: str) -> None:
    ref = OWN.task(1)
    answer = post(site, f"/tasks/{ref}/accept", {"seen": seen_of(site, ref)}, person)
    assert (answer.status_code, answer.json()["code"]) == (403, "HUB-E7106")
    assert recorded(site, ref) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1"},
        {"Origin": "//127.0.0.1"},
        {"Origin": "", "Sec-Fetch-Site": "cross-site"},
        {"Origin": ""},
    ],
)
def test_another_sites_form_is_refused(site: Site, headers: dict[str, str]) -> None:
    ref = OWN.task(1)
    answer = post(site, f"/tasks/{ref}/accept", {"seen": seen_of(site, ref)}, "person/li.lei", **headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "HUB-E7104")
    assert recorded(site, ref) == []


@pytest.mark.parametrize(
    "path", ["/tasks/task/pm/100/accept", "/tasks/task/own/none/accept", "/tasks/task/own/201/burn"]
)
def test_only_the_hubs_own_tasks_have_buttons(site: Site, path: str) -> None:
    assert post(site, path, {"seen": "x"}, "person/li.lei").status_code == 404


def test_who_one_is_goes_back_to_the_page(site: Site) -> None:
    answer = post(site, "/me", {"person": "person/li.lei", "back": "/boards/deals"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/boards/deals")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example"):
        assert post(site, "/me", {"back": elsewhere}).headers["location"] in ("/", "")


def told(site: Site, after: str, **headers: str) -> Generator[str, None, None]:
    """The lines of a stream that say something."""
    with requests.get(f"{site.url}/live?after={after}", headers=headers, stream=True, timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield from (line for line in answer.iter_lines(decode_unicode=True) if line and not line.startswith(":"))


def lines(site: Site, after: str, wanted: int, **headers: str) -> list[str]:
    stream = told(site, after, **headers)
    found = list(islice(stream, wanted))
    stream.close()
    return found


def test_a_page_that_shows_less_is_first_told_to_refresh(site: Site) -> None:
    head = site.live.head
    assert lines(site, head, 1) == [f"id: {head}"]
    assert lines(site, "tasks-0", 3) == ["event: refresh", "data: 1", f"id: {head}"]
    assert lines(site, head, 1, **{"Last-Event-ID": "tasks-1"}) == ["event: refresh"]
    assert lines(site, "older", 1, **{"Last-Event-ID": head}) == [f"id: {head}"]


def test_a_stream_names_what_is_stale_and_nothing_else(site: Site) -> None:
    stream = told(site, site.live.head)
    assert next(stream).startswith("id: ")
    site.relay.send([DEAL.step(2, "started", 30)])
    found = list(takewhile(lambda line: line != "event: part-tasks-started", stream))
    assert "event: part-tasks-created" in found
    assert {line.partition(": ")[0] for line in found} == {"event", "data", "id"}
    assert {line for line in found if line.startswith("data")} == {"data: 1"}


def test_what_another_program_wrote_is_seen(tmp_path: Path) -> None:
    """A web without runners of its own looks at the store."""
    with serve(tmp_path, runners=False) as quiet:
        before = quiet.live.head
        other = BoardStore(str(quiet.store.engine.url))
        from hub.projector.runner import Runner

        quiet.relay.send(DEAL.story())
        Runner(quiet.relay.log, other, registry.projections()["tasks"]).catch_up()
        eventually(lambda: quiet.live.head != before)
        assert len(get(quiet, "/boards/tasks.json").json()["items"]) == 3
        assert get(quiet, "/health").status_code == 503  # nobody keeps the boards fresh
        other.close()


def test_parked_work_is_told_of_on_every_page(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "ref": "command/c1",
        "kind": "command",
        "code": "HUB-E4006",
        "seen": {},
        "body": b"{}",
        "parked_at": DEAL.won().time,
    }
    with serve(tmp_path, runners=False) as quiet:
        assert 'href="/parked"' not in get(quiet, "/", Accept="text/html").text
        quiet.ledger.writer.run(lambda conn: parked.park(conn, row))
        page = get(quiet, "/boards/tasks", **{"Accept": "text/html", "Accept-Language": "zh-CN"}).text
        assert '有 1 项已搁置，<a href="/parked">查看</a>' in page


def test_what_no_one_foresaw_is_a_page_with_an_id_and_no_traceback(tmp_path: Path) -> None:
    with serve(tmp_path, runners=False) as quiet:
        with quiet.store.writing() as conn:
            conn.exec_driver_sql(
                "INSERT INTO board_inbox VALUES ('command/own/x', 'own', 'c', 'p', 't', 'no time', NULL)"
            )
        answer = get(quiet, "/boards/inbox", **{"Accept": "text/html", "Accept-Language": "en"})
        assert answer.status_code == 500
        assert "HUB-E7108" in answer.text
        assert "the log has the details" in answer.text
        assert "Traceback" not in answer.text


def test_what_only_the_log_has_is_told_as_what_the_ledger_has(tmp_path: Path) -> None:
    deal = Deal(1)
    with serve(tmp_path) as site:
        events = deal.story()
        site.ledger.writer.run(lambda conn: outbox.record(conn, events, "crm"))
        site.relay.send(events)
        eventually(lambda: settled_to(site, len(events)))
        paths = [f"/api/events/{deal.won().id}", "/why/task/pm/100.json", f"/why/{deal.case}.json"]
        before = [get(site, path).json() for path in paths]
        assert [told["id"] for told in before[1]["events"]] == [deal.created(0).id]
        site.ledger.writer.run(lambda conn: conn.execute(outbox.outbox.delete()))
        after = [get(site, path).json() for path in paths]
        assert after[0].pop("sequence") == "1"  # nobody had numbered the ledger's
        assert after == before


def test_while_the_log_is_away_what_only_it_has_is_named(tmp_path: Path) -> None:
    deal = Deal(1)
    with serve(tmp_path, places=Away()) as site:
        site.relay.send(deal.story())
        eventually(lambda: settled_to(site, len(deal.story())))
        told = get(site, f"/api/events/{deal.won().id}")
        assert (told.status_code, told.json()["code"]) == (503, "HUB-E2104")
        story = get(site, "/why/task/pm/100.json").json()
        assert (story["title"], story["events"], story["source"]) == ("启动会", [], None)
        assert (story["gaps"]["code"], len(story["gaps"]["unread"])) == ("HUB-E2104", 2)
        page = get(site, "/why/task/pm/100", **{"Accept-Language": "en"}).text
        assert "may be incomplete" in page


def settled_to(site: Site, events: int) -> bool:
    return all(
        sum(p.next_offset for p in site.store.places(name).values()) == events for name in registry.all_projections()
    )
