from __future__ import annotations

import pytest

from hub.ops.embedded_kafka import broker

FULL = """\
ERROR Error while appending records to facts-0 in dir log
java.io.IOException: No space left on device
\tat java.base/sun.nio.ch.UnixFileDispatcherImpl.write0(Native Method)
\tat java.base/sun.nio.ch.UnixFileDispatcherImpl.write(UnixFileDispatcherImpl.java:65)
ERROR Shutdown broker because all log dirs in log have failed"""

BAD_ID = """\
ERROR Exiting Kafka due to fatal exception
java.lang.RuntimeException: Failed to load meta.properties
\tat kafka.server.KafkaRaftServer$.initializeLogDirs(KafkaRaftServer.scala:178)
Caused by: java.lang.RuntimeException: Stored node id 7 doesn't match previous node id 1 in meta.properties.
\t... 3 more"""

NO_MEMORY = """\
#
# There is insufficient memory for the Java Runtime Environment to continue.
# Native memory allocation (mmap) failed to map 9 bytes. Error detail: committing reserved memory.
# An error report file with more information is saved as:
# /home/hub/hs_err_pid21805.log"""


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (FULL, "HUB-E2007"),
        ("java.io.IOException: Disk quota exceeded", "HUB-E2007"),
        ("java.lang.InternalError: a fault occurred in a recent unsafe memory access operation", "HUB-E2007"),
        ("org.apache.kafka.common.KafkaException: Socket server failed to bind: Address already in use", "HUB-E2003"),
        ("KafkaException: Failed to acquire lock on file .lock in log", "HUB-E2005"),
        (BAD_ID, "HUB-E2008"),
        ("", "HUB-E2008"),
    ],
)
def test_the_code(said: str, code: str) -> None:
    assert broker.code_of(said.splitlines()) == code


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (BAD_ID, "java.lang.RuntimeException: Stored node id 7 doesn't match previous node id 1 in meta.properties."),
        (
            "Unrecognized VM option 'Foo'\nError: Could not create the Java Virtual Machine.\n"
            "Error: A fatal exception has occurred. Program will exit.",
            "Unrecognized VM option 'Foo'",
        ),
        ("Error occurred during initialization of VM\nToo small maximum heap", "Too small maximum heap"),
        (NO_MEMORY, "Native memory allocation (mmap) failed to map 9 bytes. Error detail: committing reserved memory."),
        ("one\ntwo\n\n", "two"),
        ("", "?"),
    ],
)
def test_the_line_that_says_most(said: str, cause: str) -> None:
    assert broker.cause_in(said.splitlines()) == cause


def test_a_cause_is_never_a_page() -> None:
    assert len(broker.cause_in(["ERROR " + "x" * 5000])) == 300


@pytest.mark.parametrize(
    ("code", "said", "cause"),
    [
        (-9, ["ERROR of long ago"], "SIGKILL"),
        (1, ["ERROR at the end"], "ERROR at the end"),
        (1, [], "exit code 1"),
    ],
)
def test_why_a_program_ended(code: int, said: list[str], cause: str) -> None:
    assert broker.cause(code, said) == cause
