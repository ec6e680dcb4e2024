"""Each mistake in an instance's settings is refused with its place, and with what was meant."""

from __future__ import annotations

import pytest

from connectors.http.connector import connect
from hub.errors import FatalError
from hub.kit.connector import Idempotency
from tests.unit.hub.intake.instances import instance, target

RECEIVE = """
receive:
  verify: {scheme: standard-webhooks, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}
  events:
    - if: body.type == "deal.won"
      type: crm.opportunity.won
      subject: "opportunity/crm/${body.id}"
      version: "${body.version}"
      time: "${body.at}"
      data: {name: "${body.title}"}
"""
SEND = """
send:
  task.create:
    post: https://pm.example/tasks
    json: {title: "${command.title}"}
    once: {header: Idempotency-Key}
    id: "${response.id}"
"""


@pytest.mark.parametrize(
    ("text", "wrong", "right", "place"),
    [
        (RECEIVE, "recieve:", "receive:", "recieve"),
        (RECEIVE, "sceme:", "scheme:", "receive.verify.sceme"),
        (RECEIVE, "versoin:", "version:", "receive.events[0].versoin"),
        (RECEIVE, "subjct:", "subject:", "receive.events[0].subjct"),
        (SEND, "onse:", "once:", "send.task.create.onse"),
        (SEND, "heder:", "header:", "send.task.create.once.heder"),
    ],
)
def test_a_misspelt_key_is_told_with_the_one_that_was_meant(text: str, wrong: str, right: str, place: str) -> None:
    with pytest.raises(FatalError) as caught:
        connect(instance(text.replace(right, wrong)))
    assert (caught.value.code, str(caught.value.place)) == ("HUB-E4010", place)
    assert caught.value.seen["suggestion"] == right.rstrip(":")


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("receive: {events: []}", "HUB-E4013", "receive"),
        ("receive: {verify: , events: []}", "HUB-E4013", "receive"),
        (RECEIVE.replace("scheme: standard-webhooks, ", ""), "HUB-E4011", "receive.verify"),
        (RECEIVE.replace("standard-webhooks", "none"), "HUB-E4012", "receive.verify.scheme"),
        (RECEIVE.replace("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "[]"), "HUB-E4012", "receive.verify.secret"),
        (RECEIVE.replace("crm.opportunity.won", "Won"), "HUB-E4012", "receive.events[0].type"),
        (RECEIVE.replace("crm.opportunity.won", "hub.command.done"), "HUB-E4012", "receive.events[0].type"),
        (RECEIVE.replace("body.type ==", "body.type =="[:-1]), "HUB-E3110", "receive.events[0].if"),
        (RECEIVE.replace("${body.at}", "${boddy.at}"), "HUB-E3114", "receive.events[0].time"),
        (RECEIVE.replace("${body.title}", "${body.title"), "HUB-E3115", "receive.events[0].data.name"),
        (RECEIVE + "  timezone: Asia/Beijing", "HUB-E4012", "receive.timezone"),
        ("{}", "HUB-E4211", ""),
        (SEND.replace("post:", "put: https://pm.example/\n    post:"), "HUB-E4211", "send.task.create"),
        (SEND.replace("    post: https://pm.example/tasks\n", ""), "HUB-E4211", "send.task.create"),
        (
            SEND + '    find: {get: "https://pm.example/?m=${command.id}", id: "${response.id}", absent: "false"}',
            "HUB-E4211",
            "send.task.create",
        ),
        (SEND.replace("https://pm.example/tasks", "pm.example/tasks"), "HUB-E4210", "send.task.create.post"),
        (SEND.replace("https://pm.example/tasks", "ftp://pm.example/tasks"), "HUB-E4210", "send.task.create.post"),
        (SEND.replace("https://pm.example/tasks", '"${command.url}"'), "HUB-E4210", "send.task.create.post"),
        (SEND.replace("https://pm.example/tasks", '"https://${command.host}/x"'), "HUB-E4210", "send.task.create.post"),
        (SEND.replace("https://pm.example/tasks", '"https://pm${command.x}"'), "HUB-E4210", "send.task.create.post"),
        (SEND.replace("${response.id}", "${respone.id}"), "HUB-E3114", "send.task.create.id"),
        (SEND.replace("${command.title}", "${response.title}"), "HUB-E3114", "send.task.create.json.title"),
        (SEND + "auth: {}", "HUB-E4211", "auth"),
        (SEND + "auth: {bearer: a, header: {X-Key: b}}", "HUB-E4211", "auth"),
        (SEND + "limits: {per_second: soon}", "HUB-E4012", "limits.per_second"),
        (SEND + "limits: {at_once: 0}", "HUB-E4012", "limits.at_once"),
        (SEND + "ca: nowhere.pem", "HUB-E4012", "ca"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_where_it_stands(text: str, code: str, place: str) -> None:
    with pytest.raises(FatalError) as caught:
        connect(instance(text))
    assert (caught.value.code, str(caught.value.place)) == (code, place)
    for language in ("zh-CN", "en"):
        assert "{" not in caught.value.message(language).replace("{…}", "").replace("${", "")


def test_secrets_are_not_shown() -> None:
    with pytest.raises(FatalError) as caught:
        connect(instance(SEND + "auth: {bearer: [hidden-token]}"))
    assert "hidden-token" not in caught.value.message("en") + caught.value.message("zh-CN")
    with pytest.raises(FatalError) as caught:
        connect(instance(SEND.replace("https://", "https//user:hidden@")))
    assert "hidden" not in caught.value.message("en")


def test_the_class_of_a_command_is_as_written() -> None:
    find = '    find: {get: "https://pm.example/?m=${command.id}", id: "${response.id}", absent: "false"}'
    written = {
        Idempotency.KEY: SEND,
        Idempotency.LOOKUP: SEND.replace("    once: {header: Idempotency-Key}\n", "") + find,
        Idempotency.NONE: SEND.replace("    once: {header: Idempotency-Key}\n", ""),
    }
    for once, text in written.items():
        assert target(connect(instance(text))).idempotency("task.create") is once


def test_limits_are_passed_on() -> None:
    limits = target(connect(instance(SEND + "limits: {per_second: 200, at_once: 16, timeout: 3}"))).limits
    assert (limits.per_second, limits.at_once, limits.timeout, limits.settle) == (200.0, 16, 3.0, 2.0)
