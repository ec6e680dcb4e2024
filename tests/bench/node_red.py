"""Node-RED: its packages by npm from a lock, its one flow, and its process."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from tests.acceptance.running import until
from tests.bench.environments import LOCKS, MissingToolError, cache
from tests.ports import free_port

NAME = "node-red"
FILES = ("package.json", "package-lock.json")
SETTINGS = "module.exports = {flowFile: 'flows.json', uiHost: '127.0.0.1', telemetry: {enabled: false}, disableEditor: true};\n"
MAKE = """
const deal = msg.payload.deal;
if (msg.payload.type !== "deal.won" || Number(deal.amount) < 100000) return [msg, null];
const titles = ["启动会", "实施方案", `回款计划 ${deal.amount} ${deal.currency}`];
const tasks = titles.map((title, index) => ({
    req: msg.req,
    res: msg.res,
    payload: {project: `opportunity/crm/${deal.id}`, title, mark: `${deal.id}-${index}`},
    parts: {id: msg._msgid, type: "array", index, count: titles.length},
}));
return [null, tasks];
"""
ANSWER = "return {req: msg.req, res: msg.res, payload: {}};"


def install() -> Path:
    """The folder with its packages, made on demand. Raises MissingToolError without npm, CalledProcessError when npm refuses."""
    npm, lock = shutil.which("npm"), LOCKS / NAME
    if npm is None or shutil.which("node") is None:
        raise MissingToolError(f"{NAME} needs node and npm 缺少 node 与 npm: apt-get install nodejs npm")
    digest = hashlib.sha256((lock / FILES[1]).read_bytes()).hexdigest()[:12]
    folder = cache() / f"{NAME}-{digest}"
    if not (folder / "installed").exists():
        print(f"installing {NAME}", file=sys.stderr, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copy(lock / name, folder)
        subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True)
        (folder / "installed").touch()
    return folder


@contextlib.contextmanager
def running(target: str, data: Path) -> Iterator[int]:
    """Its port, for the time of the block: it takes webhooks, and calls `target`."""
    port, log = free_port(), data / "node-red.log"
    data.mkdir(parents=True)
    (data / "settings.js").write_text(SETTINGS, "utf-8")
    (data / "flows.json").write_bytes(orjson.dumps(flow(target)))
    red = install() / "node_modules" / "node-red" / "red.js"
    options = ["--userDir", str(data), "--port", str(port), "--settings", str(data / "settings.js")]
    with log.open("wb") as out:
        program = subprocess.Popen(["node", str(red), *options], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        until(lambda: program.poll() is not None or "Started flows" in log.read_text("utf-8"), 120, "Node-RED is ready")
        assert program.poll() is None, log.read_text("utf-8")[-1500:]
        yield port
    finally:
        program.kill()
        program.wait()


def flow(target: str) -> list[dict[str, Any]]:
    """Webhook → function → three requests → answer, as its cookbook has it."""
    call = {"method": "POST", "ret": "obj", "persist": True, "url": f"{target}/tasks"}
    return [
        {"id": "tab", "type": "tab", "label": "won2task"},
        _node("in", "http in", ["make"], url="/webhooks/crm", method="post"),
        {**_node("make", "function", [], func=MAKE, outputs=2), "wires": [["answer"], ["call"]]},
        _node("call", "http request", ["gather"], **call),
        _node("gather", "join", ["answer"], mode="auto"),
        _node("answer", "function", ["reply"], func=ANSWER, outputs=1),
        {**_node("reply", "http response", [], statusCode="202"), "wires": []},
    ]


def _node(id_: str, type_: str, to: list[str], **more: object) -> dict[str, Any]:
    # One without a place in the picture would be taken for a configuration.
    return {"id": id_, "type": type_, "z": "tab", "x": 100, "y": 100, "wires": [to], **more}
