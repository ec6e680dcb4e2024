"""The people directory: departments, people, their roles, and their accounts in every connected system."""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args

from hub.config.expecting import text_form
from hub.config.validation import Strict, Titled, check, near
from hub.config.yaml_places import Located
from hub.errors import FatalError, Place, RejectedError
from schemas.fields import Data

Id = Annotated[str, text_form(r"^[^\s/]{1,100}$", "不含空格和 / 的标识", "an id without spaces and /", "li.lei")]
FILE = "people.yaml"
PERSON_PREFIX = "person/"


class Department(Strict):
    """A department. `liaison` is its contact person."""

    name: Titled
    liaison: Id | None = None


class Person(Strict):
    """A person. `accounts`: instance of `hub.yaml` → account there."""

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

        Raises RejectedError when the role has no holder.
        """
        holders = self._holders.get(name)
        if not holders:
            raise RejectedError("HUB-E3140", role=name, near=near(name, self.roles))
        return PERSON_PREFIX + (
            holders[0] if len(holders) == 1 else max(holders, key=lambda one: _weight(case_id, one))
        )

    def holders(self, role: str) -> list[str]:
        """All holders of a role."""
        return [PERSON_PREFIX + person_id for person_id in self._holders.get(role, ())]

    @property
    def names(self) -> Mapping[str, str]:
        """Reference → name."""
        return {PERSON_PREFIX + person_id: person.name for person_id, person in self.people.items()}

    @property
    def roles(self) -> frozenset[str]:
        """Every role that has a holder."""
        return frozenset(self._holders)

    @functools.cached_property
    def _holders(self) -> Mapping[str, Sequence[str]]:
        """Role → ids of its holders."""
        holders = defaultdict[str, list[str]](list)
        for person_id, person in self.people.items():
            for role in person.roles:
                holders[role].append(person_id)
        return holders

    def person(self, ref: str) -> dict[str, Any]:
        """A person as expressions see them: `id`, `name`, `department`, `roles`. Raises RejectedError for an unknown person."""
        person = self._known(ref)
        return {"id": ref, "name": person.name, "department": person.department, "roles": list(person.roles)}

    def account(self, ref: str, instance: str) -> str:
        """The person's account at an instance; if there is none, raises RejectedError with the place to add it."""
        account = self._known(ref).accounts.get(instance)
        if account is None:
            raise RejectedError(
                "HUB-E3143", place=self.place_of.get(_id(ref)), person=ref, instance=instance, id=_id(ref)
            )
        return account

    def person_of(self, instance: str, account: str) -> str | None:
        """The person with this account, as `person/<id>`; None for an unknown account."""
        person_id = self._by_account.get((instance, account))
        return PERSON_PREFIX + person_id if person_id else None

    def person_ref(self, account: str, instance: str) -> str:
        """The reference for an account: `person/<id>`, else `account/<instance>/<account>`; a reference is returned unchanged."""
        if account.startswith((PERSON_PREFIX, "account/")):
            return account
        return self.person_of(instance, account) or f"account/{instance}/{account}"

    def with_persons(self, model: type[Data], data: Mapping[str, Any], instance: str) -> dict[str, Any]:
        """An event's data with accounts resolved to persons, in the model's person fields."""
        people = person_fields(model)
        return {
            name: self.person_ref(str(value), instance) if name in people and value is not None else value
            for name, value in data.items()
        }

    def liaison(self, department: str) -> str | None:
        """The liaison of a department, None when it has none or is unknown."""
        known = self.departments.get(department)
        return PERSON_PREFIX + known.liaison if known and known.liaison else None

    def _known(self, ref: str) -> Person:
        person = self.people.get(_id(ref)) if ref.startswith(PERSON_PREFIX) else None
        if person is None:
            raise RejectedError("HUB-E3142", person=ref, near=near(_id(ref), self.people))
        return person


@functools.cache
def person_fields(model: type[Data]) -> frozenset[str]:
    """The fields of a model that name a person."""
    fields = model.model_fields.items()
    return frozenset(name for name, info in fields if "person" in info.metadata or _is_person(info.annotation))


def _is_person(annotation: object) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    return "person" in metadata or any(_is_person(inner) for inner in get_args(annotation))


def read_people(located: Located) -> tuple[PeopleDirectory, list[FatalError]]:
    """The people of a file, and every mistake in it. A file that does not fit the model gives no people."""
    file, errors = check(_File, located, (), located.file)
    if file is None:
        return PeopleDirectory(), errors
    owners: dict[tuple[str, str], str] = {}
    for person_id, person in file.people.items():
        errors += _unknown_department(person_id, person, file, located)
        for instance, account in person.accounts.items():
            other = owners.setdefault((instance, account), person_id)
            if other != person_id:
                place = located.place(("people", person_id, "accounts", instance))
                seen = {"instance": instance, "account": account, "first": other, "second": person_id}
                errors.append(FatalError("HUB-E3145", place=place, **seen))
    errors += _unknown_liaisons(file, located)
    places = {person_id: located.key_place(("people", person_id)) for person_id in file.people}
    return PeopleDirectory(file.departments, file.people, places, owners), errors


def unknown_instances(people: PeopleDirectory, located: Located, instances: Collection[str]) -> list[FatalError]:
    """Warnings about accounts at instances that `hub.yaml` does not have."""
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


def _unknown_department(person_id: str, person: Person, file: _File, located: Located) -> list[FatalError]:
    if person.department is None or person.department in file.departments:
        return []
    place = located.place(("people", person_id, "department"))
    closest = near(person.department, file.departments)
    return [FatalError("HUB-E3146", place=place, department=person.department, near=closest)]


def _unknown_liaisons(file: _File, located: Located) -> list[FatalError]:
    return [
        FatalError(
            "HUB-E3142",
            place=located.place(("departments", name, "liaison")),
            person=department.liaison,
            near=near(department.liaison, file.people),
        )
        for name, department in file.departments.items()
        if department.liaison is not None and department.liaison not in file.people
    ]


def _id(ref: str) -> str:
    return ref.removeprefix(PERSON_PREFIX)


def _weight(case_id: str, person_id: str) -> bytes:
    return hashlib.sha256(f"{case_id}\n{person_id}".encode()).digest()
