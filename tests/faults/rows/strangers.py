"""What strangers write into a push must not become an address, a header or an expression (S7), nor steer a terminal (S21).

A fault is such a push.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from tests.acceptance.acme import SECRETS, Sender, deal
from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.stage import LONGEST, Stage

BATCH = 20
HOSTS = (
    "127.0.0.1:{port}", "localhost:{port}", "127.1:{port}", "2130706433:{port}", "0x7f000001:{port}", "0177.0.0.1:{port}",
    "[::1]:{port}", "[::ffff:127.0.0.1]:{port}", "pm@127.0.0.1:{port}", "127.0.0.1:{port}#@example.com", "127。0。0。1:{port}",
    "169.254.169.254/latest/meta-data", "example.com@127.0.0.1:{port}",
)  # fmt: skip
TEXTS = (
    "http://{host}/", "https://{host}/", "//{host}/", "gopher://{host}/_GET", "ftp://{host}/", "http:\\\\{host}\\", "HTTP://{host}/",
    "../../{host}/../", "x\r\nHost: {host}\r\nX: ", "x HTTP/1.1\r\nHost: {host}\r\n\r\nGET /", "?mark=1&find=http://{host}/",
    "%0d%0aHost:%20{host}", '<img src="http://{host}/x">', "![x](http://{host}/)", "${{jndi:ldap://{host}/a}}",
    "${{env:CRM_SECRET}}", "${{command.id}}", "${{response.id}}", "{{{{7*7}}}}", "${{decimal('1')}}@{host}",
    "';DROP TABLE commands;--http://{host}/", "file:///etc/passwd#{host}", "\u202ehttp://{host}/",
)  # fmt: skip


@dataclass
class Listener:
    """Counts who comes by."""

    server: socket.socket
    came: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Until it is closed."""
        with contextlib.suppress(OSError):
            while True:
                connection, place = self.server.accept()
                self.came.append(str(place))
                connection.close()


@contextlib.contextmanager
def listener() -> Iterator[Listener]:
    """Open to IPv4 and IPv6 on one port of this machine."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        found = Listener(server)
        threading.Thread(target=found.listen, daemon=True).start()
        yield found
        server.shutdown(socket.SHUT_RDWR)


def hostile(stage: Stage, chosen: random.Random) -> None:
    """Customers with such names: nobody is called, and the name arrives as it was written."""
    with listener() as heard:
        port = heard.server.getsockname()[1]
        names = {_name(chosen, port) for _ in range(BATCH)}
        for name in names:
            _push(stage, name)
        until(lambda: names <= {made.body["customer"] for made in stage.outside.of("projects")}, LONGEST, "all arrive")
        stage.recovers()  # and what follows from them has gone its way, too
        assert not heard.came, f"somebody called {heard.came}"
    stage.faults += BATCH


def _name(chosen: random.Random, port: int) -> str:
    host = chosen.choice(HOSTS).format(port=port)
    return f"{chosen.choice(TEXTS).format(host=host)} {chosen.randrange(10**9)}"


def _push(stage: Stage, name: str) -> int:
    """One more deal, of a customer of this name; its number."""
    with stage.load.one_more() as number:
        body = orjson.loads(deal(number))
        body["deal"]["customer"] = name
        Sender(stage.hub.url, "crm", SECRETS["CRM_SECRET"]).push(orjson.dumps(body))
    return number


FORGED = "✔ all is well"
STEERING = (
    "\x1b[2J\x1b[31m{name}", "\x1b]0;{name}\x07", "{name}\r\n✔ all is well", "\u202e{name}", "{name}\u2066\u200b",
    "\x9b31m{name}\x7f",
    "\x08\x08\x08{name}", "{name}\u2028✔ all is well", "\x1b]52;c;{name}\x07", "\x1bP{name}\x1b\\",
)  # fmt: skip
ACTING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]")
LOOKS = (("events", "tail", "-n", "200"), ("parked",), ("parked", "list"), ("status",), ("why", "{deal}"))


def steering(stage: Stage, chosen: random.Random) -> None:
    """A customer with such a name, looked at by the commands that show text from outside: nothing acts, no line is forged."""
    name = chosen.choice(STEERING).format(name=f"C-{chosen.randrange(10**9)}")
    number = _push(stage, name)
    until(lambda: name in {made.body["customer"] for made in stage.outside.of("projects")}, LONGEST, "it arrives")
    stage.recovers()
    for words in LOOKS:
        command = [word.format(deal=f"O-{number}") for word in words]
        for more in ((), ("--json",)):
            told = stage.hub.run(*command, *more).stdout
            assert not ACTING.search(told), f"hub {' '.join(command)}: {ACTING.search(told)}"
            assert not [line for line in told.split("\n") if line.startswith(FORGED)]
    stage.faults += 1


ROWS = [
    Row("S7", "names that are addresses, headers and expressions", 40, 3_000, hostile),
    Row("S21", "names that steer a terminal", 2, 100, steering, any_store=True, per_second=3.0),
]
