"""The hub's home: a folder with `hub.yaml`, `people.yaml`, `calendar.yaml` and `rules/`, read with the place of every mistake.

Only `hub.yaml` is required. Variables come from the process environment, else from the home's `.env`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.config import dotenv
from hub.config.settings import Config
from hub.config.validation import check
from hub.config.yaml_places import Located, mask_facts, read_yaml
from hub.errors import FatalError, HubError
from hub.kit.connector import Instance
from hub.log.embedded_client import client_of_folder

if TYPE_CHECKING:
    from hub.calendar import WorkingTime
    from hub.people import PeopleDirectory
    from hub.rules.files import LoadedRules, RuleFiles
    from hub.rules.reload import RuleStore
    from hub.rules.rule_set import RuleSet

CONFIG = "hub.yaml"
RULES_ANNOUNCED = "rules-told.json"
"""In the data folder: the rules that the worker announced last. Deleted whenever the log may lack that announcement."""
RULES_BROKEN = "rules-broken.json"
"""In the data folder: the mistakes in the home's files while the worker continues with their previous version."""
RULES_HISTORY = "rules-history.json"
"""In the data folder: the part of the rules' history that the worker has read."""
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
"""Hosts on which pages and webhooks may be served. Other machines have no access: sign-in does not exist yet."""
CheckInstance = Callable[[Instance], list[HubError]]


@dataclass(frozen=True)
class ConfigFinding:
    """One mistake or warning, with its place; secrets are masked."""

    error: HubError
    is_error: bool


@dataclass(frozen=True)
class Home:
    """A snapshot of a home. Mistakes in its people and rules are reported by `check`, or on their first use."""

    path: Path
    config: Config
    located: Located
    environ: Mapping[str, str]
    data: Path

    @classmethod
    def load(cls, path: Path, environ: Mapping[str, str] | None = None) -> Home:
        """Read a home; `environ` is by default this process's.

        Raises FatalError for a folder without `hub.yaml` and for the first mistake in it. A variable that only a connector
        lacks is reported by `instances`.
        """
        located, variables = _read_config(path, environ)
        config, errors = _config(located)
        if config is None or errors:
            raise _masked(errors[0], located.secrets)
        home = cls(
            path.resolve(), _with_log_address(config, variables), located, variables, data_folder(path, variables)
        )
        for error in _shared_file_errors(home):
            raise error
        return home

    def check(self, check_instance: CheckInstance | None = None) -> list[ConfigFinding]:
        """Every mistake and warning of the home. `check_instance` checks each connector's settings."""
        return _findings(self, check_instance)

    @property
    def name(self) -> str:
        """The hub's name."""
        return self.config.name

    @functools.cached_property
    def instances(self) -> Mapping[str, Instance]:
        """The connected systems by name; raises FatalError for one that lacks an environment variable."""
        for error in _deferred(self.located):
            raise error
        return self._instances()

    def _instances(self) -> dict[str, Instance]:
        return {
            name: Instance(
                name=name,
                use=entry.use,
                settings={key: value for key, value in self.located.value["connectors"][name].items() if key != "use"},
                place=self.located.below(("connectors", name)),
                home=self.path,
                timezone=self.config.timezone,
            )
            for name, entry in self.config.connectors.items()
        }

    @functools.cached_property
    def _rules(self) -> LoadedRules:
        return self.rule_files().read()

    @property
    def rules(self) -> RuleSet:
        """Its rules; raises FatalError for the first mistake in them, in people.yaml or in calendar.yaml."""
        return self._rules.sound()

    @property
    def people(self) -> PeopleDirectory:
        """Its people; raises FatalError for the first mistake in people.yaml."""
        return self._rules.sound_people()

    @property
    def working_time(self) -> WorkingTime:
        """Its working days; `is_estimated` is true for a year whose moved weekends are not published yet."""
        return self._rules.working_time

    def rule_files(self, *, strict: bool = False) -> RuleFiles:
        """Its rule and people files, which can be read again; `strict` also refuses a rule that always fails."""
        from hub.rules.files import RuleFiles  # imports CEL: slow, and many commands need no rules

        return RuleFiles(self.path, self.located, self.config, self.environ, strict)

    def rule_store(self) -> RuleStore:
        """Its rules for a long-running program: reloaded when their files change."""
        from hub.rules.reload import RuleStore

        return RuleStore(self.rule_files(strict=True), self.data / "rules.json")

    @property
    def secrets(self) -> set[str]:
        """Values that must never appear in logs, pages and messages."""
        return self.located.secrets

    @property
    def ledger_url(self) -> str:
        """The SQLAlchemy URL of the ledger: HUB_LEDGER, else that of `hub.yaml`."""
        return self.config.database(self.environ.get("HUB_LEDGER") or self.config.ledger, f"{self.data}/ledger.sqlite")

    @property
    def boards_url(self) -> str:
        """The SQLAlchemy URL of the boards' store: HUB_BOARDS, else that of `hub.yaml`."""
        return self.config.database(self.environ.get("HUB_BOARDS") or self.config.boards, f"{self.data}/boards.sqlite")

    @property
    def web_address(self) -> tuple[str, int]:
        """Where pages and webhooks are served: HUB_WEB_PORT's port, else that of `hub.yaml`."""
        port = self.environ.get("HUB_WEB_PORT") or self.config.web.port
        return self.config.web.host, int(port)

    @property
    def web_url(self) -> str:
        """The base URL of the pages."""
        host, port = self.web_address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def kafka_client(self, bootstrap: str | None = None) -> dict[str, Any]:
        """librdkafka's settings. The address is `bootstrap`, else HUB_KAFKA's, else that of `hub.yaml`.

        At the address of this home's embedded broker they authenticate with its secret, unless `hub.yaml` configures SASL.
        Raises FatalError when no address is known: the embedded broker has one only while it runs.
        """
        address = bootstrap or self.config.kafka.bootstrap
        if address is None:
            raise FatalError("HUB-E3010", home=self.path)
        client = self.config.kafka.client(address, self.path)
        return client if self.config.kafka.sasl else {**client, **client_of_folder(self.data / "kafka", address)}

    @property
    def copy(self) -> str:
        """HUB_COPY: which copy of the worker this is, where a hub runs several."""
        return self.environ.get("HUB_COPY") or "1"


def check_home(
    path: Path, environ: Mapping[str, str] | None = None, check_instance: CheckInstance | None = None
) -> list[ConfigFinding]:
    """As `Home.check`, also for a home with mistakes in `hub.yaml`. Raises FatalError only when that file is missing."""
    located, variables = _read_config(path, environ)
    config, errors = _config(located)
    if config is None:
        return [ConfigFinding(_masked(error, located.secrets), True) for error in errors]
    home = Home(path.resolve(), _with_log_address(config, variables), located, variables, data_folder(path, variables))
    errors += _shared_file_errors(home)
    return [*(ConfigFinding(_masked(error, located.secrets), True) for error in errors), *home.check(check_instance)]


def _shared_file_errors(home: Home) -> list[FatalError]:
    """An error if ledger and boards share one SQLite file: a damaged board store is moved away, and the ledger with it."""
    file = _file_of(home.ledger_url)
    if file is None or file != _file_of(home.boards_url):
        return []
    return [FatalError("HUB-E3011", place=home.located.key_place(("boards",)), file=file)]


def _file_of(url: str) -> Path | None:
    """The file of a SQLite URL; None for a server's URL."""
    if not url.startswith("sqlite"):
        return None
    return Path(url.partition(":///")[2].partition("?")[0]).resolve()


def data_folder(path: Path, environ: Mapping[str, str] | None = None) -> Path:
    """A home's data folder: HUB_DATA, else `.hub` in the home, else, for a read-only home, the user's state folder."""
    variables = os.environ if environ is None else environ
    home = path.resolve()
    if variables.get("HUB_DATA"):
        return Path(variables["HUB_DATA"]).expanduser().resolve()
    if (home / ".hub").is_dir() or _writable(home):
        return home / ".hub"
    user_home = Path(variables.get("HOME") or Path.home())
    state = Path(variables.get("XDG_STATE_HOME") or user_home / ".local" / "state")
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:8]
    return state / "baton" / f"{home.name}-{digest}"


def _writable(folder: Path) -> bool:
    """Whether the folder is writable, also by its mode: root may write anywhere, but should not in a read-only folder."""
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def _read_config(path: Path, environ: Mapping[str, str] | None) -> tuple[Located, Mapping[str, str]]:
    if not (path / CONFIG).is_file():
        raise FatalError("HUB-E1001", home=path)
    variables = {**dotenv.read(path / ".env"), **(os.environ if environ is None else environ)}
    return read_yaml(path / CONFIG, CONFIG, variables), variables


def _config(located: Located) -> tuple[Config | None, list[FatalError]]:
    """The settings and their mistakes; None for settings that cannot be parsed."""
    config, errors = check(Config, located, (), CONFIG)
    deferred = _deferred(located)
    if config is not None and config.web.host not in LOOPBACK_HOSTS:
        errors = [*errors, FatalError("HUB-E7001", place=located.place(("web", "host")), host=config.web.host)]
    return config, [*(error for error in located.errors if error not in deferred), *errors]


def _with_log_address(config: Config, environ: Mapping[str, str]) -> Config:
    """The settings with the bootstrap address of HUB_KAFKA, if it is set."""
    return config.model_copy(update={"kafka": config.kafka.at(environ.get("HUB_KAFKA"))})


def _deferred(located: Located) -> list[FatalError]:
    """Errors about missing variables that only a connector needs."""
    return [error for path, error in located.lacking.items() if path[:1] == ("connectors",)]


def _findings(home: Home, check_instance: CheckInstance | None) -> list[ConfigFinding]:
    from hub.people import unknown_instances
    from hub.rules import renames
    from hub.rules.history import cached_timeline
    from hub.rules.trial import check_trials

    files = home.rule_files(strict=True)
    rules = files.read()
    instances = home._instances()
    errors: list[HubError] = [*_deferred(home.located), *rules.errors]
    of_instances = list[HubError]()
    if check_instance is not None:
        complete = [name for name in instances if not any(path[1:2] == (name,) for path in home.located.lacking)]
        of_instances = [error for name in complete for error in check_instance(instances[name])]
        errors += [error for error in of_instances if not error.code.startswith("HUB-W")]
    warnings: list[HubError] = [
        *(error for error in of_instances if error.code.startswith("HUB-W")),
        *unknown_instances(rules.people, rules.people_file, instances),
        *rules.warnings,
        *renames.warnings(cached_timeline(home.data / RULES_HISTORY), rules.files),
        *files.unread(),
        *dotenv.invalid_lines(home.path / ".env"),
    ]
    errors += check_trials(home.path / "rules", home.environ)
    findings = [*((error, True) for error in errors), *((error, False) for error in warnings)]
    return [ConfigFinding(_masked(error, home.secrets), is_error) for error, is_error in findings]


def _masked(error: HubError, secrets: set[str]) -> HubError:
    error.seen = mask_facts(error.seen, secrets)
    return error
