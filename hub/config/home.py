"""The hub's home: a folder with `hub.yaml`, `people.yaml`, `calendar.yaml` and `rules/`, read with the place of every mistake.

Only `hub.yaml` must be there. Environment variables come from the environment, and beneath it from the home's `.env`.
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
from hub.ops.embedded_kafka import sign_in

if TYPE_CHECKING:
    from hub.calendar import WorkingTime
    from hub.people import PeopleDirectory
    from hub.rules.files import LoadedRules, RuleFiles
    from hub.rules.reload import RuleStore
    from hub.rules.rule_set import RuleSet

CONFIG = "hub.yaml"
RULES_TOLD = "rules-told.json"
"""In the data folder: which rules the worker has announced last. To be forgotten with a log that may lack the announcement."""
RULES_BROKEN = "rules-broken.json"
"""In the data folder: what is wrong with the home's files while the worker runs on with what they said before."""
RULES_HISTORY = "rules-history.json"
"""In the data folder: what the worker has read of the rules' history."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Where pages and pushes are served. No other machine gets there: nobody can sign in yet."""
CheckInstance = Callable[[Instance], list[HubError]]


@dataclass(frozen=True)
class ConfigFinding:
    """One mistake or warning, with its place; secrets are masked."""

    error: HubError
    is_error: bool


@dataclass(frozen=True)
class Home:
    """A home as it was when it was read. What is wrong with its people and rules waits for `check`, or for their use."""

    path: Path
    config: Config
    located: Located
    environ: Mapping[str, str]
    data: Path

    @classmethod
    def load(cls, path: Path, environ: Mapping[str, str] | None = None) -> Home:
        """Read a home; `environ` is by default this process's.

        Raises FatalError for a folder without `hub.yaml` and for the first mistake in it. A variable that only a connector
        lacks is told when that connector is asked for.
        """
        located, seen = _read_config(path, environ)
        config, errors = _config(located)
        if config is None or errors:
            raise _masked(errors[0], located.secrets)
        home = cls(path.resolve(), _moved(config, seen), located, seen, data_folder(path, seen))
        for error in _one_file(home):
            raise error
        return home

    def check(self, check_instance: CheckInstance | None = None) -> list[ConfigFinding]:
        """Every mistake and warning of the home. `check_instance` is asked about each connector's settings."""
        return _findings(self, check_instance)

    @property
    def name(self) -> str:
        """What the hub is called."""
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
        """Its working days; `is_estimated` tells of a year whose moved weekends are not published yet."""
        return self._rules.working_time

    def rule_files(self, *, strict: bool = False) -> RuleFiles:
        """Where its rules and people stand, to be read again; `strict` for those that would act on a rule that always fails."""
        from hub.rules.files import RuleFiles  # with CEL behind it: slow to import, and many commands need no rules

        return RuleFiles(self.path, self.located, self.config, self.environ, strict)

    def rule_store(self) -> RuleStore:
        """Its rules for a program that runs on: they change when their files do."""
        from hub.rules.reload import RuleStore

        return RuleStore(self.rule_files(strict=True), self.data / "rules.json")

    @property
    def secrets(self) -> set[str]:
        """Values that no log, page or message may show."""
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
        """The address of the pages, as a browser takes it."""
        host, port = self.web_address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def kafka_client(self, bootstrap: str | None = None) -> dict[str, Any]:
        """librdkafka's settings. The address is `bootstrap`, else HUB_KAFKA's, else that of `hub.yaml`.

        At the address of the embedded broker of this home they sign in with its secret, unless `hub.yaml` has a sign-in.
        Raises FatalError when there is none: the embedded broker has an address only while it runs.
        """
        address = bootstrap or self.config.kafka.bootstrap
        if address is None:
            raise FatalError("HUB-E3010", home=self.path)
        client = self.config.kafka.client(address, self.path)
        return client if self.config.kafka.sasl else {**client, **sign_in.of_folder(self.data / "kafka", address)}

    @property
    def copy(self) -> str:
        """HUB_COPY: which copy of the worker this is, where a hub runs several."""
        return self.environ.get("HUB_COPY") or "1"


def check_home(
    path: Path, environ: Mapping[str, str] | None = None, check_instance: CheckInstance | None = None
) -> list[ConfigFinding]:
    """As `Home.check`, also for a home whose `hub.yaml` is wrong. Raises FatalError only when there is none."""
    located, seen = _read_config(path, environ)
    config, errors = _config(located)
    if config is None:
        return [ConfigFinding(_masked(error, located.secrets), True) for error in errors]
    home = Home(path.resolve(), _moved(config, seen), located, seen, data_folder(path, seen))
    errors += _one_file(home)
    return [*(ConfigFinding(_masked(error, located.secrets), True) for error in errors), *home.check(check_instance)]


def _one_file(home: Home) -> list[FatalError]:
    """Ledger and boards in one SQLite file: a damaged store of boards is set aside, and would take the ledger with it."""
    file = _file_of(home.ledger_url)
    if file is None or file != _file_of(home.boards_url):
        return []
    return [FatalError("HUB-E3011", place=home.located.key_place(("boards",)), file=file)]


def _file_of(url: str) -> Path | None:
    """The file that a SQLite URL names; None for a server's."""
    if not url.startswith("sqlite"):
        return None
    return Path(url.partition(":///")[2].partition("?")[0]).resolve()


def data_folder(path: Path, environ: Mapping[str, str] | None = None) -> Path:
    """Where a home's data goes: HUB_DATA, else `.hub` in it, else, for a home that may not be written, the user's state folder."""
    seen = os.environ if environ is None else environ
    home = path.resolve()
    if seen.get("HUB_DATA"):
        return Path(seen["HUB_DATA"]).expanduser().resolve()
    if (home / ".hub").is_dir() or _writable(home):
        return home / ".hub"
    state = Path(seen.get("XDG_STATE_HOME") or Path(seen.get("HOME") or Path.home()) / ".local" / "state")
    mark = hashlib.sha256(str(home).encode()).hexdigest()[:8]
    return state / "baton" / f"{home.name}-{mark}"


def _writable(folder: Path) -> bool:
    """Whether it may be written, by its mode too: root may write anywhere, and should not where nobody else may."""
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def _read_config(path: Path, environ: Mapping[str, str] | None) -> tuple[Located, Mapping[str, str]]:
    if not (path / CONFIG).is_file():
        raise FatalError("HUB-E1001", home=path)
    seen = {**dotenv.read(path / ".env"), **(os.environ if environ is None else environ)}
    return read_yaml(path / CONFIG, CONFIG, seen), seen


def _config(located: Located) -> tuple[Config | None, list[FatalError]]:
    """The settings, and what is wrong with them; None when nothing can be made of them."""
    config, errors = check(Config, located, (), CONFIG)
    deferred = _deferred(located)
    if config is not None and config.web.host not in LOOPBACK:
        errors = [*errors, FatalError("HUB-E7001", place=located.place(("web", "host")), host=config.web.host)]
    return config, [*(error for error in located.errors if error not in deferred), *errors]


def _moved(config: Config, environ: Mapping[str, str]) -> Config:
    """The settings with the log at HUB_KAFKA, if that is set."""
    return config.model_copy(update={"kafka": config.kafka.at(environ.get("HUB_KAFKA"))})


def _deferred(located: Located) -> list[FatalError]:
    """Variables that only a connector lacks."""
    return [error for path, error in located.lacking.items() if path[:1] == ("connectors",)]


def _findings(home: Home, check_instance: CheckInstance | None) -> list[ConfigFinding]:
    from hub.people import unknown_instances
    from hub.rules import renames
    from hub.rules.history import kept
    from hub.rules.trial import check_trials

    files = home.rule_files(strict=True)
    rules = files.read()
    instances = home._instances()
    errors: list[HubError] = [*_deferred(home.located), *rules.errors]
    of_instances = list[HubError]()
    if check_instance is not None:
        whole = [name for name in instances if not any(path[1:2] == (name,) for path in home.located.lacking)]
        of_instances = [error for name in whole for error in check_instance(instances[name])]
        errors += [error for error in of_instances if not error.code.startswith("HUB-W")]
    warnings: list[HubError] = [
        *(error for error in of_instances if error.code.startswith("HUB-W")),
        *unknown_instances(rules.people, rules.people_file, instances),
        *rules.warnings,
        *renames.warnings(kept(home.data / RULES_HISTORY), rules.files),
        *files.unread(),
        *dotenv.strange(home.path / ".env"),
    ]
    errors += check_trials(home.path / "rules", home.environ)
    found = [*((error, True) for error in errors), *((error, False) for error in warnings)]
    return [ConfigFinding(_masked(error, home.secrets), is_error) for error, is_error in found]


def _masked(error: HubError, secrets: set[str]) -> HubError:
    error.seen = mask_facts(error.seen, secrets)
    return error
