"""Prints a new `jars.lock`: the jars that Kafka needs by Maven Central's POMs, with their sizes and digests.

Coordinates given as arguments take the place of Kafka's, for a lock of something else.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jgo.maven import Artifact, MavenContext

from hub.ops.embedded_kafka.classpath import ROOTS, repository


def fresh_lock(wanted: Sequence[str] = ROOTS) -> str:
    """Resolve coordinates through their POMs (network, about half a minute) to the text of `jars.lock`."""
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch), remote_repos={"central": repository()})
        roots, others = context.resolver.resolve([context.create_dependency(root) for root in wanted])
        lines = [_lock_line(dependency.artifact) for dependency in [*roots, *others]]
    arguments = "" if wanted == ROOTS else "".join(f" {root}" for root in wanted)
    head = f"# sha256 size coordinate; printed by: python -m hub.ops.embedded_kafka.pin_jars{arguments}\n"
    return head + "\n".join(lines) + "\n"


def _lock_line(artifact: Artifact) -> str:
    path = Path(artifact.resolve())
    content = path.read_bytes()
    where = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
    return f"{hashlib.sha256(content).hexdigest()} {len(content)} {where}"


if __name__ == "__main__":
    print(fresh_lock(sys.argv[1:] or ROOTS), end="")  # noqa: T201 - this command's output
