from __future__ import annotations

from pathlib import Path

from hub.ops.embedded_kafka import server
from hub.ops.embedded_kafka.sign_in import StartPassword

PASSWORD = StartPassword("a-password")


def test_every_listener_is_on_the_loopback() -> None:
    settings = dict(line.split("=", 1) for line in server.properties(1111, 2222, PASSWORD).splitlines())
    assert settings["listeners"] == "CLIENT://127.0.0.1:1111,CONTROLLER://127.0.0.1:2222"
    assert settings["advertised.listeners"] == "CLIENT://127.0.0.1:1111"
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:2222"


def test_no_listener_lets_in_who_has_not_signed_in_and_who_is_not_named_may_do_nothing() -> None:
    settings = dict(line.split("=", 1) for line in server.properties(1111, 2222, PASSWORD).splitlines())
    assert settings["listener.security.protocol.map"] == "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT"
    assert settings["authorizer.class.name"].endswith(".StandardAuthorizer")
    assert settings["super.users"] == "User:hub;User:broker"
    assert "allow.everyone.if.no.acl.found" not in settings


def test_the_password_of_a_start_is_not_told_by_a_traceback() -> None:
    assert "a-password" not in repr(PASSWORD)
    assert StartPassword.fresh() != StartPassword.fresh()


def test_the_settings_depend_on_no_path() -> None:
    """Kafka reads them as Latin-1: a path of the user's would not survive."""
    assert server.properties(1, 2, PASSWORD).isascii()
    assert "/" not in server.properties(1, 2, PASSWORD).replace("://", "")


def test_java_gets_no_secret_and_no_options_meant_for_others() -> None:
    ours = {"PATH": "/bin", "CRM_PASSWORD": "x", "JAVA_TOOL_OPTIONS": "-javaagent:x", "LC_ALL": "zh_CN.UTF-8"}
    assert server.environment(ours) == {"PATH": "/bin", "LC_ALL": "C.UTF-8"}


def test_the_broker_is_known_by_its_mark() -> None:
    command = server.broker_command(Path("java"), [Path("a.jar"), Path("b.jar")], "256m", ["-XX:x"], "-Dmark")
    assert command[:3] == ["java", "-cp", "a.jar:b.jar"]
    assert command[-4:] == ["-XX:x", "-Dmark", "kafka.Kafka", "server.properties"]
    assert "-Xmx256m" in command


def test_the_base_archive_is_made_with_the_options_it_is_used_with() -> None:
    """The JVM refuses one that was made with others."""
    made = server.base_archive_command(Path("java"), Path("base"))
    used = server.broker_command(Path("java"), [], "256m", [], "-Dmark")
    assert set(server.JVM) <= set(made)
    assert set(server.JVM) <= set(used)
