"""`python -m hub.ops.embedded_kafka --data DIR [--port N]`: the embedded broker in the foreground.

Reports progress on stderr, and prints the bootstrap address as the only line on stdout once the broker answers. SIGTERM, SIGINT
and SIGHUP stop it. Exits with the broker's code (128 + n when signal n killed it; 143 after a stop), or 5 when it can't start.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from hub.errors import HubError
from hub.ops.embedded_kafka.broker import BrokerPlan, EmbeddedKafka
from hub.runtime.program import begin

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
BROKER_ERROR = 5


class BrokerStop(BaseException):
    """Raised in the main thread by the first of `SIGNALS`; later ones are ignored, so that the stop completes."""


def main(arguments: list[str]) -> int:
    """Run the broker until it ends or a signal stops it; the exit code."""
    begin()
    options = _options(arguments)
    plan = BrokerPlan(options.data, options.port, options.heap, options.required)
    broker = EmbeddedKafka(plan, lambda line, _done: _say(line))
    for sign in SIGNALS:
        signal.signal(sign, _on_signal)
    if options.with_parent:
        threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()
    try:
        return _exit_code(_run(broker))
    except BrokerStop:
        broker.stop()
        return 128 + signal.SIGTERM
    except HubError as error:
        _say(f"{error.code} {error.message()}\n  {error.fix()}")
        return BROKER_ERROR


def _run(broker: EmbeddedKafka) -> int:
    sys.stdout.write(broker.start() + "\n")
    sys.stdout.flush()
    code = broker.wait()
    failure = broker.failure()
    if failure is not None:
        _say(f"{failure.code} {failure.message()}\n  {failure.fix()}")
    return code


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.ops.embedded_kafka")
    parser.add_argument("--data", type=Path, required=True, help="<home>/.hub/kafka")
    parser.add_argument("--port", type=int, default=BrokerPlan.port, help="another is chosen when it is taken; 0: any")
    parser.add_argument("--required", action="store_true", help="that port or none")
    parser.add_argument("--heap", default=BrokerPlan.heap)
    parser.add_argument(
        "--with-parent", action="store_true", help="stop when the process that started this one is gone"
    )
    return parser.parse_args(arguments)


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    for sign in SIGNALS:
        signal.signal(sign, signal.SIG_IGN)
    raise BrokerStop


def _follow_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
