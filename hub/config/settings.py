"""What `hub.yaml` may say, as frozen models. Secrets are filled in from the environment before they come here.

The bound of what one sender may have parked. Apart from its counting, as every command reads settings and few open a ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hub.config.expecting import form
from hub.config.validation import Strict

Port = Annotated[int, Field(ge=1, le=65535)]
InstanceName = Annotated[
    str, form(r"^[a-z][a-z0-9_-]{0,39}$", "小写字母开头的名称", "a name in small letters", "crm-2")
]
HubName = Annotated[
    str, form(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$", "字母或数字开头的名称", "a name of letters and digits", "acme-hub")
]
History = Annotated[
    str, form(r"^(forever|[1-9][0-9]{0,4}[smhd])$", "时长或 forever", "a length of time, or forever", "14d")
]
Forgetting = Annotated[str, form(r"^(off|[1-9][0-9]{0,4}[smhd])$", "时长或 off", "a length of time, or off", "180d")]
Database = Annotated[
    str,
    form(
        r"^(sqlite|[a-z0-9]+(\+[a-z0-9]+)?://\S+)$",
        "sqlite 或数据库网址",
        "sqlite or a database's address",
        "postgresql+psycopg://baton@db.example/baton",
    ),
]


class Tls(Strict):
    """Files that prove who is who, beside `hub.yaml` unless absolute; without `ca` the system's authorities count."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    key_password: Annotated[str | None, Field(repr=False)] = None


class Sasl(Strict):
    """A sign-in at the broker."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str
    password: Annotated[str, Field(repr=False)]


class Kafka(Strict):
    """The log: the embedded broker, or a cluster by its `bootstrap` addresses. `port` is for the embedded one."""

    embedded: bool | None = None
    port: Port = 19092
    bootstrap: str | None = None
    tls: bool | Tls = False
    sasl: Sasl | None = None
    copies: Annotated[int | None, Field(alias="replication", ge=1, le=10)] = None

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if self.embedded is None:
            object.__setattr__(self, "embedded", self.bootstrap is None)
        if self.embedded == (self.bootstrap is not None):
            raise ValueError('{embedded: true} | {bootstrap: "k1:9092,k2:9092"}')
        return self

    @property
    def replication(self) -> int | None:
        """Copies of each topic; None: as many as the cluster has brokers for, up to three."""
        return self.copies or (1 if self.embedded else None)

    def at(self, bootstrap: str | None) -> Self:
        """The same, with the address that the environment gives: who names a cluster wants no embedded broker."""
        return self.model_copy(update={"embedded": False, "bootstrap": bootstrap}) if bootstrap else self

    def client(self, bootstrap: str, folder: Path) -> dict[str, Any]:
        """librdkafka's settings for this broker at this address; files are found from `folder` on."""
        secure = "SSL" if self.tls else ""
        protocol = "_".join(part for part in ("SASL" if self.sasl else "", secure or "PLAINTEXT") if part)
        return {"bootstrap.servers": bootstrap, "security.protocol": protocol, **self._tls(folder), **self._sasl()}

    def _tls(self, folder: Path) -> dict[str, str]:
        if not isinstance(self.tls, Tls):
            return {}
        files = {
            "ssl.ca.location": self.tls.ca,
            "ssl.certificate.location": self.tls.certificate,
            "ssl.key.location": self.tls.key,
        }
        password = {"ssl.key.password": self.tls.key_password} if self.tls.key_password else {}
        return {name: str(folder / file) for name, file in files.items() if file is not None} | password

    def _sasl(self) -> dict[str, str]:
        if self.sasl is None:
            return {}
        return {
            "sasl.mechanism": self.sasl.mechanism,
            "sasl.username": self.sasl.username,
            "sasl.password": self.sasl.password,
        }


class Web(Strict):
    """Where pages and webhooks are served."""

    host: str = "127.0.0.1"
    port: Port = 8600


class HealthSettings(Strict):
    """Seconds after which the hub says that it is not well; `hub.health` judges by them."""

    oldest: Annotated[float, Field(gt=0)] = 15.0
    """That anything may wait at one of its stages: to be written to the log, folded, asked for, shown."""
    stream: Annotated[float, Field(gt=0)] = 30.0
    """That a polled stream may go unread; at least three of its intervals."""


class CaseSettings(Strict):
    """What the processor keeps of cases."""

    forget_after: Forgetting = "180d"
    """How long a case has been over, by the times at which the log's events were recorded, when its state is dropped."""

    @property
    def forgets(self) -> timedelta | None:
        """The same; None: no case is forgotten."""
        return None if self.forget_after == "off" else _length(self.forget_after)


_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def _length(text: str) -> timedelta:
    return int(text[:-1]) * _UNITS[text[-1]]


class ConnectorEntry(Strict, extra="allow"):
    """One connected system: `use` names the connector, which reads the other keys."""

    use: str

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Without the other keys: there are secrets among them."""
        return [("use", self.use)]


class Config(Strict):
    """`hub.yaml`."""

    name: HubName = "hub"
    language: Literal["zh-CN", "en"] = "zh-CN"
    timezone: str = "Asia/Shanghai"
    calendar: str = "CN"
    kafka: Kafka = Kafka()
    ledger: Database = "sqlite"
    ledger_history: History = "14d"
    boards: Database = "sqlite"
    web: Web = Web()
    health: HealthSettings = HealthSettings()
    cases: CaseSettings = CaseSettings()
    connectors: Mapping[InstanceName, ConnectorEntry] = {}

    @property
    def history(self) -> timedelta | None:
        """For how long the ledger keeps an event that the log has; None: for ever."""
        return None if self.ledger_history == "forever" else _length(self.ledger_history)

    def database(self, url: str, file: str) -> str:
        """The SQLAlchemy URL of a store; `sqlite` is a file of the hub's own."""
        return f"sqlite:///{file}" if url == "sqlite" else url


@dataclass(frozen=True)
class Quota:
    """What may be open of one instance's deliveries."""

    entries: int = 10_000
    bytes: int = 256 * 1024 * 1024
    again: float = 1.0
    """Seconds for which it stays full without another count."""
