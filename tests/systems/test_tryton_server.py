"""The throw-away Tryton itself: fresh each time, gone with its owner, safe to prepare from several processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from connectors.tryton.client import TrytonClient
from connectors.tryton.connector import connect
from connectors.tryton.demo import server as installation
from connectors.tryton.demo.people import Salesperson
from connectors.tryton.demo.server import RealTryton
from connectors.tryton.target import TrytonTarget
from hub.errors import RetryableError, UncertainError
from hub.kit.connector import Effect, Instance, RateLimits
from schemas.envelope import Command
from tests.process_state import is_running

pytestmark = pytest.mark.systems


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def opportunities(server: RealTryton) -> int:
    with Salesperson(server.account()) as seller:
        return len(seller.client.search("sale.opportunity", [], ["id"]))


def test_each_start_is_fresh_unless_told_to_keep_and_fast_once_it_is_cached(tmp_path: Path) -> None:
    lines: list[str] = []
    server = RealTryton(tmp_path, lambda line, done: lines.append(line))
    server.prepare()
    lines.clear()
    with server:
        with Salesperson(server.account()) as seller:
            seller.create_opportunity("x", "y", "1")
        assert opportunities(server) == 1
    server.start(keep=True)
    assert opportunities(server) == 1
    server.stop()
    with server:
        assert opportunities(server) == 0
    server.stop()
    assert lines == [installation.progress_text("start", version=installation.VERSION)] * 3


def test_the_server_ends_with_its_owner_even_when_that_is_killed(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from connectors.tryton.demo.server import RealTryton
        server = RealTryton(Path(sys.argv[1]))
        server.start()
        print(server._server.pid, flush=True)
        time.sleep(600)
    """)
    RealTryton(tmp_path).prepare()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert is_running(pid)
        owner.kill()
    assert eventually(lambda: not is_running(pid))


def test_commands_survive_a_killed_server_without_loss_or_double(tmp_path: Path) -> None:
    """As the executor does it: a doubtful create is looked up, a sure failure is tried again."""
    server = RealTryton(tmp_path)
    url = server.start()
    account = server.account()
    client = TrytonClient(url, account.database, account.login, account.password, timeout=5.0)
    target = TrytonTarget(client, "crm", RateLimits())
    commands = [made_command(number) for number in range(30)]
    killed_after = 10

    def carry_out(command: Command) -> Effect:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                return target.send(command)
            except UncertainError:
                eventually(is_back)
                if found := target.find(command):
                    return found
            except RetryableError:
                eventually(is_back)
        raise AssertionError(f"{command.id} was not carried out")

    def is_back() -> bool:
        try:
            return bool(client.version())
        except RetryableError:
            return False

    with ThreadPoolExecutor(2) as pool:
        doing = [pool.submit(carry_out, command) for command in commands]
        assert doing[killed_after].result()
        assert server._server is not None
        os.kill(server._server.pid, signal.SIGKILL)
        server.stop()
        server.start(int(url.rpartition(":")[2]), keep=True)
        effects = [one.result() for one in doing]
    works = client.search("project.work", [], ["comment"])
    assert sorted(row["comment"] for row in works) == sorted(f"baton:{command.id}" for command in commands)
    assert [target.find(command) for command in commands] == effects
    client.close()
    server.stop()


def made_command(number: int) -> Command:
    return Command(
        id=f"c-{number:04}",
        type="task.create",
        instance="crm",
        case="opportunity/crm/1",
        time="2026-11-22T00:00:00.000000Z",
        causationid="e-1",
        subject="opportunity/crm/1",
        rule="won",
        digest="d",
        arguments={"title": f"任务 {number}"},
        position=0,
    )


def test_a_poll_goes_on_where_it_was_after_the_server_was_killed(tmp_path: Path) -> None:
    server = RealTryton(tmp_path)
    url = server.start()
    polls = connect(Instance("crm", "tryton", server.account().settings())).polls
    assert polls is not None
    with Salesperson(server.account()) as seller:
        deal = seller.create_opportunity("中断", "客户", "1")
        first = polls.poll("opportunities", None)
        seller.pursue(deal)
        assert server._server is not None
        os.kill(server._server.pid, signal.SIGKILL)
        with pytest.raises(RetryableError):
            polls.poll("opportunities", first.cursor)
        server.stop()
        server.start(int(url.rpartition(":")[2]), keep=True)
        second = polls.poll("opportunities", first.cursor)
    assert [len(page.facts) for page in (first, second)] == [1, 1]
    server.stop()


def test_two_that_prepare_at_once_seed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RealTryton(tmp_path).prepare()
    monkeypatch.setattr(installation, "seeded_database", lambda: tmp_path / "seeded.sqlite")
    lines: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        doing = [pool.submit(RealTryton(tmp_path, lambda line, done: lines.append(line)).prepare) for _ in range(2)]
        for one in doing:
            one.result()
    assert lines == [installation.progress_text("seed")]
    assert [path.name for path in tmp_path.iterdir()] == ["seeded.sqlite"]


@pytest.mark.parametrize("uv", [True, False])
def test_without_network_the_first_run_says_so_and_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uv: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    if not uv:
        monkeypatch.setattr(shutil, "which", lambda name: None)
    lines: list[str] = []
    for _ in range(2):
        with pytest.raises(RetryableError) as failed:
            RealTryton(tmp_path / "root", lambda line, done: lines.append(line)).start()
        assert failed.value.code == "HUB-E4110"
    assert lines == [installation.progress_text("install", version=installation.VERSION)] * 2


def test_a_port_that_is_taken_is_an_error_with_the_log_s_place(tmp_path: Path) -> None:
    with RealTryton(tmp_path / "first") as first:
        second = RealTryton(tmp_path / "second")
        with pytest.raises(RetryableError) as failed:
            second.start(int(first.url.rpartition(":")[2]))
    assert failed.value.code == "HUB-E4111"
    assert failed.value.seen["log"] == str(tmp_path / "second" / "trytond.log")
