"""Who is who: departments, people, their roles, and their accounts in every connected system.

The people of people.yaml as the file is now: read again when it changes, kept as they were while it is wrong.
"""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args

import structlog

from hub.config.expecting import form
from hub.config.home import CONFIG, Home
from hub.config.validation import Strict, Titled, check, near
from hub.config.yaml_places import Located
from hub.errors import FatalError, HubError, Place, RejectedError
from schemas.fields import Data

Id = Annotated[str, form(r"^[^\s/]{1,100}$", "不含空格和 / 的标识", "an id without spaces and /", "li.lei")]
PREFIX = "person/"


class Department(Strict):
    """A department. `liaison` is the person that others turn to."""

    name: Titled
    liaison: Id | None = None


class Person(Strict):
    """A person. `accounts` names them in each instance of `hub.yaml`."""

    name: str
    department: str | None = None
    roles: tuple[str, ...] = ()
    accounts: Mapping[str, str] = {}


class _File(Strict):
    departments: Mapping[Id, Department] = {}
    people: Mapping[Id, Person] = {}


@dataclass(frozen=True)
class PeopleDirectory:
    """Everyone in `people.yaml`. References are `person/<id>`."""

    departments: Mapping[str, Department] = field(default_factory=dict)
    people: Mapping[str, Person] = field(default_factory=dict)
    place_of: Mapping[str, Place] = field(default_factory=dict)
    _by_account: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def role(self, name: str, case_id: str) -> str:
        """One holder of the role, always the same for one case; a holder who comes or goes moves only their own share of cases.

        Raises RejectedError when nobody holds it.
        """
        holders = self._holders.get(name)
        if not holders:
            raise RejectedError("HUB-E3140", role=name, near=near(name, self.roles))
        return PREFIX + (holders[0] if len(holders) == 1 else max(holders, key=lambda one: _weight(case_id, one)))

    def holders(self, role: str) -> list[str]:
        """Everybody who holds a role."""
        return [PREFIX + person_id for person_id in self._holders.get(role, ())]

    @property
    def names(self) -> Mapping[str, str]:
        """Reference → name."""
        return {PREFIX + person_id: person.name for person_id, person in self.people.items()}

    @property
    def roles(self) -> frozenset[str]:
        """Every role that somebody holds."""
        return frozenset(self._holders)

    @functools.cached_property
    def _holders(self) -> Mapping[str, Sequence[str]]:
        """Role → who holds it."""
        holders = defaultdict[str, list[str]](list)
        for person_id, person in self.people.items():
            for role in person.roles:
                holders[role].append(person_id)
        return holders

    def person(self, ref: str) -> dict[str, Any]:
        """What expressions see of a person: `id`, `name`, `department`, `roles`. Raises RejectedError for an unknown one."""
        person = self._known(ref)
        return {"id": ref, "name": person.name, "department": person.department, "roles": list(person.roles)}

    def account(self, ref: str, instance: str) -> str:
        """The person's account at an instance; raises RejectedError that says where to add it when there is none."""
        account = self._known(ref).accounts.get(instance)
        if account is None:
            raise RejectedError(
                "HUB-E3143", place=self.place_of.get(_id(ref)), person=ref, instance=instance, id=_id(ref)
            )
        return account

    def person_of(self, instance: str, account: str) -> str | None:
        """Whose account that is; None when nobody has it."""
        found = self._by_account.get((instance, account))
        return PREFIX + found if found else None

    def named_one(self, account: str, instance: str) -> str:
        """The reference of whoever has that account: `person/<id>`, else `account/<instance>/<account>`; a reference stays."""
        if account.startswith((PREFIX, "account/")):
            return account
        return self.person_of(instance, account) or f"account/{instance}/{account}"

    def named(self, model: type[Data], data: Mapping[str, Any], instance: str) -> dict[str, Any]:
        """An event's data with persons for accounts, in the fields that its model says are persons."""
        people = person_fields(model)
        return {
            name: self.named_one(str(value), instance) if name in people and value is not None else value
            for name, value in data.items()
        }

    def liaison(self, department: str) -> str | None:
        """The liaison of a department, None when it has none or is unknown."""
        known = self.departments.get(department)
        return PREFIX + known.liaison if known and known.liaison else None

    def _known(self, ref: str) -> Person:
        person = self.people.get(_id(ref)) if ref.startswith(PREFIX) else None
        if person is None:
            raise RejectedError("HUB-E3142", person=ref, near=near(_id(ref), self.people))
        return person


@functools.cache
def person_fields(model: type[Data]) -> frozenset[str]:
    """The fields of a model that name a person."""
    fields = model.model_fields.items()
    return frozenset(name for name, info in fields if "person" in info.metadata or _marked(info.annotation))


def _marked(annotation: object) -> bool:
    marks = getattr(annotation, "__metadata__", ())
    return "person" in marks or any(_marked(inner) for inner in get_args(annotation))


def read_people(located: Located) -> tuple[PeopleDirectory, list[FatalError]]:
    """The people of a file, and every mistake in it; with mistakes, what is left of them without those."""
    told, errors = check(_File, located, (), located.file)
    if told is None:
        return PeopleDirectory(), errors
    owners: dict[tuple[str, str], str] = {}
    for person_id, person in told.people.items():
        errors += _checked(person_id, person, told, located)
        for instance, account in person.accounts.items():
            other = owners.setdefault((instance, account), person_id)
            if other != person_id:
                place = located.place(("people", person_id, "accounts", instance))
                seen = {"instance": instance, "account": account, "first": other, "second": person_id}
                errors.append(FatalError("HUB-E3145", place=place, **seen))
    errors += _unknown_liaisons(told, located)
    places = {person_id: located.key_place(("people", person_id)) for person_id in told.people}
    return PeopleDirectory(told.departments, told.people, places, owners), errors


def unknown_instances(people: PeopleDirectory, located: Located, instances: Collection[str]) -> list[FatalError]:
    """Accounts at instances that `hub.yaml` does not have."""
    return [
        FatalError(
            "HUB-W3144",
            place=located.key_place(("people", person_id, "accounts", instance)),
            instance=instance,
            near=near(instance, instances),
        )
        for person_id, person in people.people.items()
        for instance in person.accounts
        if instance not in instances
    ]


def _checked(person_id: str, person: Person, told: _File, located: Located) -> list[FatalError]:
    if person.department is None or person.department in told.departments:
        return []
    place = located.place(("people", person_id, "department"))
    known = near(person.department, told.departments)
    return [FatalError("HUB-E3146", place=place, department=person.department, near=known)]


def _unknown_liaisons(told: _File, located: Located) -> list[FatalError]:
    return [
        FatalError(
            "HUB-E3142",
            place=located.place(("departments", name, "liaison")),
            person=department.liaison,
            near=near(department.liaison, told.people),
        )
        for name, department in told.departments.items()
        if department.liaison is not None and department.liaison not in told.people
    ]


def _id(ref: str) -> str:
    return ref.removeprefix(PREFIX)


def _weight(case_id: str, person_id: str) -> bytes:
    return hashlib.sha256(f"{case_id}\n{person_id}".encode()).digest()


FILE = "people.yaml"
log = structlog.get_logger(__name__)


class PeopleWatcher:
    """Answers intake (whose account is this?) and the executor (which account has this person?). For any thread."""

    def __init__(self, home: Home) -> None:
        """Raises FatalError for the first mistake in people.yaml."""
        self._path = home.path
        self._people: PeopleDirectory = home.people
        self._seen = {name: _changed(home.path / name) for name in (FILE, CONFIG)}

    def person_of(self, instance: str, account: str) -> str | None:
        """As `PeopleDirectory.person_of`."""
        return self._people.person_of(instance, account)

    def account(self, person: str, instance: str, /) -> str:
        """As `PeopleDirectory.account`."""
        return self._people.account(person, instance)

    def refresh(self) -> bool:
        """Read people.yaml again if it has changed; whether there are other people now. Changed settings need a restart."""
        now = {name: _changed(self._path / name) for name in (FILE, CONFIG)}
        changed = {name for name, when in now.items() if when != self._seen[name]}
        self._seen = now
        if CONFIG in changed:
            news = HubError("HUB-E1022", file=CONFIG)
            log.warning("settings.changed", code=news.code, reason=news.message(), fix=news.fix())
        if FILE not in changed:
            return False
        try:
            self._people = Home.load(self._path).people
        except HubError as error:
            log.error("people.wrong", **error.fields())
            return False
        log.info("people.read", people=len(self._people.people))
        return True


def _changed(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
