"""The settings of `hub.yaml` as frozen models, with secrets filled in from the environment; and the quota of parked deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hub.config.expecting import text_form
from hub.config.validation import Strict

Port = Annotated[int, Field(ge=1, le=65535)]
InstanceName = Annotated[
    str, text_form(r"^[a-z][a-z0-9_-]{0,39}$", "小写字母开头的名称", "a name in small letters", "crm-2")
]
HubName = Annotated[
    str,
    text_form(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$", "字母或数字开头的名称", "a name of letters and digits", "acme-hub"),
]
History = Annotated[
    str, text_form(r"^(forever|[1-9][0-9]{0,4}[smhd])$", "时长或 forever", "a length of time, or forever", "14d")
]
ForgetAfter = Annotated[
    str, text_form(r"^(off|[1-9][0-9]{0,4}[smhd])$", "时长或 off", "a length of time, or off", "180d")
]
Database = Annotated[
    str,
    text_form(
        r"^(sqlite|[a-z0-9]+(\+[a-z0-9]+)?://\S+)$",
        "sqlite 或数据库网址",
        "sqlite or a database's address",
        "postgresql+psycopg://baton@db.example/baton",
    ),
]


class Tls(Strict):
    """Certificate files, relative to `hub.yaml` unless absolute; without `ca` the system's authorities are trusted."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    key_password: Annotated[str | None, Field(repr=False)] = None


class Sasl(Strict):
    """SASL credentials for the broker."""

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
    def _is_consistent(self) -> Self:
        if self.embedded is None:
            object.__setattr__(self, "embedded", self.bootstrap is None)
        if self.embedded == (self.bootstrap is not None):
            raise ValueError('{embedded: true} | {bootstrap: "k1:9092,k2:9092"}')
        return self

    @property
    def replication(self) -> int | None:
        """Replication factor of each topic; None: the number of brokers, at most three."""
        return self.copies or (1 if self.embedded else None)

    def at(self, bootstrap: str | None) -> Self:
        """The same settings with the environment's bootstrap address; it disables the embedded broker."""
        return self.model_copy(update={"embedded": False, "bootstrap": bootstrap}) if bootstrap else self

    def client(self, bootstrap: str, folder: Path) -> dict[str, Any]:
        """librdkafka's settings for this broker at this address; file paths are relative to `folder`."""
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
    """Limits in seconds after which `hub.health` reports the hub as unhealthy."""

    oldest: Annotated[float, Field(gt=0)] = 15.0
    """Age of the oldest item at any stage: waiting to be published, folded, executed, or shown."""
    stream: Annotated[float, Field(gt=0)] = 30.0
    """Time since the last poll of a stream; at least three of its intervals."""


class CaseSettings(Strict):
    """How long the processor retains cases."""

    forget_after: ForgetAfter = "180d"
    """How long after a case is over its state is dropped, measured by the recorded times of the log's events."""

    @property
    def forgets(self) -> timedelta | None:
        """`forget_after` as a timedelta; None: no case is forgotten."""
        return None if self.forget_after == "off" else _length(self.forget_after)


_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def _length(text: str) -> timedelta:
    return int(text[:-1]) * _UNITS[text[-1]]


class ConnectorEntry(Strict, extra="allow"):
    """One connected system: `use` names the connector, which reads the other keys."""

    use: str

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Without the other keys: they may hold secrets."""
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
        """How long the ledger retains an event that the log has; None: indefinitely."""
        return None if self.ledger_history == "forever" else _length(self.ledger_history)

    def database(self, url: str, file: str) -> str:
        """The SQLAlchemy URL of a store; `sqlite` means the file `file`."""
        return f"sqlite:///{file}" if url == "sqlite" else url


@dataclass(frozen=True)
class Quota:
    """Limit on one instance's parked deliveries. Here and not beside its check: every command reads settings, few open a ledger."""

    entries: int = 10_000
    bytes: int = 256 * 1024 * 1024
    again: float = 1.0
    """Seconds for which a full quota is not counted again."""
