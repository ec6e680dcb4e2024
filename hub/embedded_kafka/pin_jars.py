"""Prints a fresh `jars.lock`: the jars that Maven Central's POMs say Kafka needs, with their sizes and digests."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from jgo.maven import Artifact, MavenContext

from hub.embedded_kafka.classpath import ROOTS, repository


def fresh_lock() -> str:
    """Resolve `ROOTS` through their POMs (network, about half a minute) and say it as the text of `jars.lock`."""
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch), remote_repos={"central": repository()})
        roots, others = context.resolver.resolve([context.create_dependency(root) for root in ROOTS])
        lines = [_lock_line(dependency.artifact) for dependency in [*roots, *others]]
    return "# sha256 size coordinate; printed by: python -m hub.embedded_kafka.pin_jars\n" + "\n".join(lines) + "\n"


def _lock_line(artifact: Artifact) -> str:
    path = Path(artifact.resolve())
    content = path.read_bytes()
    where = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
    return f"{hashlib.sha256(content).hexdigest()} {len(content)} {where}"


if __name__ == "__main__":
    print(fresh_lock(), end="")  # noqa: T201 - this command's output
