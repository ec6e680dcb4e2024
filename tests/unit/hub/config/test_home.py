"""The home: read whole, with every mistake at its place; and rules that follow their files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from connectors.http.settings import HttpSettings
from connectors.redmine.settings import RedmineSettings
from connectors.tryton.connector import TrytonSettings
from hub.config.expecting import PATTERNS
from hub.config.settings import Config
from hub.errors import FatalError, HubError
from hub.home import ConfigFinding, Home, check_home, data_folder
from hub.kit.connector import Instance
from hub.people import _File as PeopleFile
from hub.rules.language import _Rule
from hub.rules.reload import RuleFileChange, RuleStore
from hub.rules.trial import run_trials

ACME = Path(__file__).parents[3] / "homes" / "acme"
SECRETS = {f"{name}_SECRET": f"whsec_{name}" for name in ("CRM", "PM", "STOCK", "DESK")}
ENVIRON = SECRETS | {f"{name}_URL": f"http://127.0.0.1/{name}" for name in ("PM", "IM", "ERP")}


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ACME, tmp_path / "acme"))


def small(tmp_path: Path, config: str = "name: small\n", **files: str) -> Path:
    (tmp_path / "rules").mkdir(exist_ok=True)
    (tmp_path / "hub.yaml").write_text(config, "utf-8")
    for name, text in files.items():
        (tmp_path / name.replace("__", "/")).with_suffix(".yaml").write_text(text, "utf-8")
    return tmp_path


def told(findings: list[ConfigFinding]) -> list[tuple[str, str, bool]]:
    return [(found.error.code, str(found.error.place), found.is_error) for found in findings]


def test_the_example_home_loads_unchanged_and_its_trials_pass(acme: Path) -> None:
    home = Home.load(acme, ENVIRON)
    assert home.check() == []
    assert sorted(home.instances) == ["crm", "desk", "erp", "im", "pm", "stock"]
    assert home.instances["pm"].settings["send"]["project.create"]["post"] == "http://127.0.0.1/PM/projects"
    assert str(home.instances["pm"].place(("send", "project.create", "post"))) == "hub.yaml:54:16"
    assert len(home.rules.rules) == 4
    assert home.people.person_of("crm", "U-3") == "person/wang.fang"
    trials = run_trials(home.path / "rules", home.rules, ENVIRON)
    assert [(trial.name, trial.problems) for trial in trials] == [
        ("十万以上的赢单立项并分配任务", ()),
        ("同一赢单送达两次只立项一次", ()),
        ("小单不立项", ()),
    ]


def test_every_missing_variable_is_told_and_only_connectors_that_need_it_wait(acme: Path) -> None:
    home = Home.load(acme, ENVIRON | {"HUB_DATA": str(acme)} | {"PM_URL": "x"})
    assert home.instances
    lacking = {key: value for key, value in ENVIRON.items() if key != "ERP_URL"}
    assert [found.error.seen["name"] for found in Home.load(acme, lacking).check()] == ["ERP_URL"]
    with pytest.raises(FatalError, match="HUB-E3006"):
        _ = Home.load(acme, lacking).instances
    assert len(check_home(acme, {})) == 9


def test_a_folder_that_is_no_home_says_so(tmp_path: Path) -> None:
    for read in (Home.load, check_home):
        with pytest.raises(FatalError, match="HUB-E1001"):
            read(tmp_path, {})


def test_only_hub_yaml_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "hub.yaml").write_text("name: bare\n")
    home = Home.load(tmp_path, {})
    assert (home.check(), home.rules.rules, home.people.people, dict(home.instances)) == ([], (), {}, {})
    assert (home.config.language, home.config.timezone, home.config.web.port) == ("zh-CN", "Asia/Shanghai", 8600)
    assert home.config.kafka.embedded
    assert home.config.kafka.replication == 1


def test_the_environment_wins_over_the_file_beside_it(tmp_path: Path) -> None:
    small(tmp_path, 'name: "${env:NAME}"\nledger: "${env:DB}"\n')
    (tmp_path / ".env").write_text('# note\nexport NAME=file\nDB="sqlite"\n\nodd line\n')
    assert Home.load(tmp_path, {}).config.name == "file"
    assert Home.load(tmp_path, {"NAME": "given"}).config.name == "given"


@pytest.mark.parametrize(
    ("config", "code", "place"),
    [
        ("nmae: x", "HUB-E3005", "1:1"),
        ("web: {port: soon}", "HUB-E3001", "1:13"),
        ("web: {port: 99999}", "HUB-E3001", "1:13"),
        ("language: fr", "HUB-E3001", "1:11"),
        ("ledger: mysql", "HUB-E3001", "1:9"),
        ("kafka: {embedded: true, bootstrap: 'k:1'}", "HUB-E3001", "1:8"),
        ("kafka: {embedded: false}", "HUB-E3001", "1:8"),
        ("kafka: {bootstrap: 'k:1', sasl: {username: u}}", "HUB-E3007", "1:33"),
        ("connectors: {crm: {usse: http}}", "HUB-E3007", "1:19"),
        ("connectors: {CRM: {use: http}}", "HUB-E3001", "1:19"),
        ("connectors:\n  crm: http", "HUB-E3001", "2:8"),
        ("ledger: ${env:NOPE}", "HUB-E3006", "1:9"),
        ("name: a\nname: b", "HUB-E3003", "2:1"),
        ("name: [", "HUB-E3002", "1:8"),
    ],
)
def test_a_mistake_in_the_settings_has_its_place(tmp_path: Path, config: str, code: str, place: str) -> None:
    small(tmp_path, config)
    assert (code, f"hub.yaml:{place}", True) in told(check_home(tmp_path, {}))
    with pytest.raises(FatalError) as caught:
        Home.load(tmp_path, {})
    assert caught.value.code == code


def test_check_tells_everything_at_once(tmp_path: Path) -> None:
    rule = "rule: won\ntitle: {zh: 赢, en: Won}\nowner: x\nwhen: crm.opportunity.won\nif: event.data.amuont == '1'\n"
    home = small(
        tmp_path,
        "timezone: Mars/Base\nconnectors: {pm: {use: http}}\n",
        people="people: {a: {name: A, accounts: {mp: '1'}}}",
        rules__good=rule + "do:\n  - task.create: {in: pm, title: a}\n",
        rules__bad=rule.replace("won", "bad", 1) + "do:\n  - task.create: {in: mp, title: a}\n",
        rules__worse="rule: [",
    )
    (home / "rules" / "good.test.yaml").write_text("tests: [{}]")

    def check_instance(instance: Instance) -> list[HubError]:
        return [FatalError("HUB-E4012", place=instance.place(("use",)))]

    assert told(Home.load(home, {}).check(check_instance)) == [
        ("HUB-E3153", "hub.yaml:1:11", True),
        ("HUB-E3165", "rules/bad.yaml:7:23", True),
        ("HUB-E3002", "rules/worse.yaml:1:8", True),
        ("HUB-E3120", "rules/good.yaml:5:16", True),
        ("HUB-E4012", "hub.yaml:2:24", True),
        ("HUB-E3007", "rules/good.test.yaml:1:9", True),
        ("HUB-E3007", "rules/good.test.yaml:1:9", True),
        ("HUB-W3144", "people.yaml:1:34", False),
    ]


def test_secrets_are_masked_and_never_shown_by_the_settings(tmp_path: Path) -> None:
    config = "kafka: {bootstrap: 'k:1', sasl: {username: u, password: '${env:P}'}}\nledger: '${env:DB_PASSWORD}'\n"
    small(tmp_path, config)
    with pytest.raises(FatalError) as caught:
        Home.load(tmp_path, {"P": "hidden-1", "DB_PASSWORD": "hidden 2"})
    assert "hidden" not in caught.value.message("en") + str(caught.value)
    home = Home.load(small(tmp_path, config.partition("\n")[0]), {"P": "hidden-1"})
    assert "hidden" not in repr(home.config)
    assert {"hidden-1"} <= home.secrets


def test_the_brokers_address_is_found(tmp_path: Path) -> None:
    home = Home.load(small(tmp_path), {})
    with pytest.raises(FatalError, match="HUB-E3010"):
        home.kafka_client()
    assert home.kafka_client("h:1") == {"bootstrap.servers": "h:1", "security.protocol": "PLAINTEXT"}
    named = Home.load(tmp_path, {"HUB_KAFKA": "h:2"})
    assert named.kafka_client()["bootstrap.servers"] == "h:2"
    assert not named.config.kafka.embedded, "who names a cluster gets no embedded broker"
    assert named.config.kafka.replication is None, "as many as the cluster has brokers for"
    secure = "kafka: {bootstrap: 'k:1', tls: {ca: /ca.pem}, sasl: {mechanism: PLAIN, username: u, password: p}}\n"
    assert Home.load(small(tmp_path, secure), {}).kafka_client() == {
        "bootstrap.servers": "k:1", "security.protocol": "SASL_SSL", "ssl.ca.location": "/ca.pem",
        "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "p",
    }  # fmt: skip


def test_files_of_a_broker_lie_beside_the_settings(tmp_path: Path) -> None:
    tls = "{ca: tls/ca.pem, certificate: /etc/hub.pem, key: hub.key, key_password: '${env:P}'}"
    home = Home.load(small(tmp_path, f"kafka: {{bootstrap: 'k:1', tls: {tls}}}\n"), {"P": "hidden"})
    assert home.kafka_client() == {
        "bootstrap.servers": "k:1", "security.protocol": "SSL", "ssl.ca.location": str(tmp_path / "tls/ca.pem"),
        "ssl.certificate.location": "/etc/hub.pem", "ssl.key.location": str(tmp_path / "hub.key"),
        "ssl.key.password": "hidden",
    }  # fmt: skip


def test_a_file_of_secrets_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (small(tmp_path) / ".env").write_bytes(b"NAME=\xff")
    with pytest.raises(FatalError, match=r"HUB-E3008 \.env"):
        Home.load(tmp_path, {})


def test_which_copy_this_is(tmp_path: Path) -> None:
    assert Home.load(small(tmp_path), {}).copy == "1"
    assert Home.load(small(tmp_path), {"HUB_COPY": "worker-2"}).copy == "worker-2"


def test_data_lies_in_the_home_unless_it_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    home = small(tmp_path / "home")
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert data_folder(home, state) == home / ".hub"
    assert Home.load(home, state).ledger_url == f"sqlite:///{home}/.hub/ledger.sqlite"
    home.chmod(0o555)
    try:
        elsewhere = data_folder(home, state)
        assert elsewhere.parent == tmp_path / "state" / "baton"
        assert elsewhere.name.startswith("home-")
    finally:
        home.chmod(0o755)
    assert data_folder(home, state | {"HUB_DATA": str(tmp_path / "own")}) == tmp_path / "own"


WON = "rule: won\ntitle: {zh: 赢, en: Won}\nowner: x\nwhen: crm.opportunity.won\ndo:\n  - task.create: {in: pm, title: %s}\n"
CONFIG = "connectors: {pm: {use: http}}\n"


def write(file: Path, text: str) -> None:
    """Write with a time of its own, so that no clock's step hides the change."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text, "utf-8")
    os.utime(file, ns=(before + 1_000_000_000, before + 1_000_000_000))


def store(home: Path) -> RuleStore:
    return Home.load(home, {"HUB_DATA": str(home / "data")}).rule_store()


def test_rules_follow_their_files(tmp_path: Path) -> None:
    home = small(tmp_path, CONFIG, rules__won=WON % "a")
    running = store(home)
    first = running.rules.digests()["won"]
    assert running.reload_if_changed() is None
    write(home / "rules" / "won.yaml", WON % "b")
    write(home / "rules" / "more.yaml", (WON % "c").replace("won", "more", 1))
    reloaded = running.reload_if_changed()
    now = running.rules.digests()
    assert reloaded is not None
    assert reloaded.changes == (RuleFileChange("more", now["more"], None), RuleFileChange("won", now["won"], first))
    (home / "rules" / "more.yaml").unlink()
    removed = running.reload_if_changed()
    assert removed is not None
    assert removed.changes == (RuleFileChange("more", None, now["more"]),)
    assert running.reload_if_changed() is None


def test_a_broken_file_never_takes_down_running_rules(tmp_path: Path) -> None:
    home = small(tmp_path, CONFIG, rules__won=WON % "a")
    running = store(home)
    before = running.rules
    write(home / "rules" / "won.yaml", "rule: [")
    broken = running.reload_if_changed()
    assert broken is not None
    assert [error.code for error in broken.errors] == ["HUB-E3002"]
    assert running.rules is before
    assert running.reload_if_changed() is None, "told once"
    restarted = store(home)
    assert restarted.rules.digests() == before.digests()
    assert [error.code for error in restarted.errors] == ["HUB-E3002"]
    write(home / "rules" / "won.yaml", WON % "b")
    mended = restarted.reload_if_changed()
    assert mended is not None
    assert [change.name for change in mended.changes] == ["won"]


@pytest.mark.parametrize("wrong", ["event.data.nmae == 'a'", "event.data.amount > 5", "role('leed') == 'a'"])
def test_a_rule_that_fails_on_every_event_never_becomes_a_running_one(tmp_path: Path, wrong: str) -> None:
    home = small(tmp_path, CONFIG, rules__won=WON % "a")
    running = store(home)
    before = running.rules
    bad = (WON % "b").replace("do:", f"if: {wrong}\ndo:")
    write(home / "rules" / "won.yaml", bad)
    refused = running.reload_if_changed()
    assert refused is not None
    assert [error.place.file for error in refused.errors if error.place] == ["rules/won.yaml"]
    assert running.rules is before
    assert len(Home.load(home, {}).rules.rules) == 1, "it can be looked at and tried"
    with pytest.raises(FatalError):
        Home.load(home, {"HUB_DATA": str(home / "fresh")}).rule_store()


def test_a_hub_that_never_had_sound_rules_does_not_start_with_broken_ones(tmp_path: Path) -> None:
    home = small(tmp_path, CONFIG, rules__won="rule: [")
    with pytest.raises(FatalError, match="HUB-E3002"):
        store(home)
    with pytest.raises(FatalError, match="HUB-E3002"):
        _ = Home.load(home, {}).rules


def test_people_change_with_their_file_too(tmp_path: Path) -> None:
    home = small(tmp_path, CONFIG, people="people: {a: {name: A}}")
    running = store(home)
    write(home / "people.yaml", "people: {a: {name: A, accounts: {pm: '7'}}}")
    reloaded = running.reload_if_changed()
    assert reloaded is not None
    assert reloaded.changes == ()
    assert running.people.account("person/a", "pm") == "7"


def test_touching_a_file_changes_nothing(tmp_path: Path) -> None:
    home = small(tmp_path, CONFIG, rules__won=WON % "a")
    running = store(home)
    write(home / "rules" / "won.yaml", WON % "a")
    assert running.reload_if_changed() is None


@pytest.mark.parametrize(
    "other", ["sqlite:///{0}/x.sqlite", "sqlite:///{0}/a/../x.sqlite", "sqlite+pysqlite:///{0}/x.sqlite?timeout=9"]
)
def test_one_sqlite_file_for_ledger_and_boards_is_refused_by_every_command(tmp_path: Path, other: str) -> None:
    first = f"sqlite:///{tmp_path}/x.sqlite"
    home = small(tmp_path, f'name: small\nledger: "{first}"\nboards: "{other.format(tmp_path)}"\n')
    assert told(check_home(home, {})) == [("HUB-E3011", "hub.yaml:3:1", True)]
    with pytest.raises(FatalError, match="HUB-E3011"):
        Home.load(home, {})
    with pytest.raises(FatalError, match="HUB-E3011"):
        Home.load(small(tmp_path), {"HUB_LEDGER": first, "HUB_BOARDS": other.format(tmp_path)})


def test_one_postgresql_database_may_hold_both(tmp_path: Path) -> None:
    url = "postgresql+psycopg://hub@db/hub"
    assert told(check_home(small(tmp_path, f'name: small\nledger: "{url}"\nboards: "{url}"\n'), {})) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.2", "hub.example.com", ""])
def test_an_address_that_others_could_reach_is_a_mistake_with_its_place(tmp_path: Path, host: str) -> None:
    """Found by `hub validate`, and before anything is started; the boards' program alone refuses it, too."""
    home = small(tmp_path, f"web: {{host: '{host}'}}\n")
    with pytest.raises(FatalError, match="HUB-E7001"):
        Home.load(home, {})
    (found,) = check_home(home, {})
    assert (found.error.code, str(found.error.place), found.is_error) == ("HUB-E7001", "hub.yaml:1:14", True)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8600"),
        ("localhost", "http://localhost:8600"),
        ("::1", "http://[::1]:8600"),
    ],
)
def test_the_address_of_the_pages_is_one_that_a_browser_opens(tmp_path: Path, host: str, url: str) -> None:
    assert Home.load(small(tmp_path, f"web: {{host: '{host}'}}\n"), {}).web_url == url


@pytest.mark.parametrize(("text", "seconds"), [("14d", 14 * 86400), ("36h", 36 * 3600), ("5m", 300), ("1s", 1)])
def test_the_history_of_the_ledger_is_a_length_of_time(tmp_path: Path, text: str, seconds: int) -> None:
    history = Home.load(small(tmp_path, f"name: small\nledger_history: {text}\n"), {}).config.history
    assert history is not None
    assert history.total_seconds() == seconds


def test_the_history_may_be_kept_for_ever(tmp_path: Path) -> None:
    assert Home.load(small(tmp_path, "name: small\nledger_history: forever\n"), {}).config.history is None


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("180d", timedelta(days=180)),
        ("36h", timedelta(hours=36)),
        ("5m", timedelta(minutes=5)),
        ("1s", timedelta(seconds=1)),
        ("99999d", timedelta(days=99999)),
        ("off", None),
    ],
)
def test_when_a_case_is_forgotten_is_a_length_of_time(tmp_path: Path, text: str, length: timedelta | None) -> None:
    cases = Home.load(small(tmp_path, f"name: small\ncases: {{forget_after: {text}}}\n"), {}).config.cases
    assert cases.forgets == length


def test_without_a_word_cases_are_forgotten_after_half_a_year(tmp_path: Path) -> None:
    assert Home.load(small(tmp_path, "name: small\n"), {}).config.cases.forgets == timedelta(days=180)


@pytest.mark.parametrize("text", ["30", "0d", "1.5d", "Off", "never", "999999d", "-1d", "''"])
def test_a_time_to_forget_after_that_is_none_is_refused_with_an_example(tmp_path: Path, text: str) -> None:
    with pytest.raises(FatalError, match=r"HUB-E3001 hub\.yaml:2") as caught:
        Home.load(small(tmp_path, f"name: small\ncases: {{forget_after: {text}}}\n"), {})
    assert "180d" in caught.value.fix("en")
    assert "180d" in caught.value.fix("zh-CN")


@pytest.mark.parametrize("model", [Config, _Rule, PeopleFile, HttpSettings, TrytonSettings, RedmineSettings])
def test_no_mistake_is_told_by_a_pattern(model: type[BaseModel]) -> None:
    patterns = {each["pattern"] for each in _within(model.model_json_schema()) if "pattern" in each}
    assert patterns
    assert patterns <= PATTERNS.keys()


def _within(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _within(each)


@pytest.mark.parametrize("text", ["14", "0d", "1.5d", "two weeks", "999999d", "-1d"])
def test_a_history_that_is_none_is_refused_with_an_example(tmp_path: Path, text: str) -> None:
    with pytest.raises(FatalError, match="HUB-E3001") as caught:
        Home.load(small(tmp_path, f'name: small\nledger_history: "{text}"\n'), {})
    assert "14d" in caught.value.fix("en")
