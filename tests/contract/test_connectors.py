"""What every connector must keep, whatever it connects: one suite over each folder that has a manifest."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import pytest
import yaml

from hub.errors import FatalError, RejectedError
from hub.kit import registry
from hub.kit.connector import Connector, Delivery, Fact, Idempotency, Instance
from hub.kit.manifest import ANY
from schemas.registry import COMMANDS, event_spec
from tests.contract.connector_samples import RECEIVED, Sample, as_yaml, delivery, event_ids, instance, samples

NAMES = registry.names()
SAMPLES = [sample for name in NAMES for sample in samples(name)]
HEADINGS = {"zh": ("凭证", "覆盖", "故障"), "en": ("Credentials", "Coverage", "Outages")}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """No connection is opened by anything that this suite does; one that was tried shows even if its error was eaten."""
    tried: list[Any] = []

    def connect(self: socket.socket, address: Any, *rest: Any) -> NoReturn:
        tried.append(address)
        raise AssertionError(f"opened a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect)
    yield tried
    assert tried == []


def _connect(name: str) -> Connector:
    return registry.connect(instance(name))


def _takes(connector: Connector) -> frozenset[str]:
    return connector.sends.command_types if connector.sends else frozenset()


def test_there_are_connectors() -> None:
    assert {"http", "builtin"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_its_manifest_is_complete(name: str) -> None:
    manifest = registry.manifest(name)
    assert manifest.name == name == registry.folder(name).name
    assert any(item.state == "done" for item in manifest.items)
    for text in (
        manifest.title,
        manifest.summary,
        manifest.guarantee,
        *(setting.about for setting in manifest.settings),
    ):
        assert re.search(r"[\u4e00-\u9fff]|^[A-Za-z0-9 .]+$", text.zh), f"no Chinese in {text.zh}"
        assert not re.search(r"[\u4e00-\u9fff]", text.en), f"Chinese in {text.en}"


@pytest.mark.parametrize("name", NAMES)
def test_its_readme_says_what_people_need(name: str) -> None:
    readme = (registry.folder(name) / "README.md").read_text("utf-8")
    headings = re.findall(r"^#+ +(.*)$", readme, re.MULTILINE)
    for language, wanted in HEADINGS.items():
        places = [next((at for at, each in enumerate(headings) if word in each), None) for word in wanted]
        assert None not in places, f"{language}: {wanted} are needed, there are {headings}"
    assert headings.index("凭证") < headings.index("Credentials"), "Chinese comes first"


@pytest.mark.parametrize("name", NAMES)
def test_it_connects_offline_twice_alike(name: str) -> None:
    one, other = _connect(name), _connect(name)
    assert _takes(one) == _takes(other)
    assert one.instance.name == "sample"


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_as_its_manifest_says(name: str) -> None:
    connector = _connect(name)
    faces = {(False, False): "none", (True, False): "webhook", (False, True): "poll", (True, True): "both"}
    assert registry.manifest(name).learns == faces[connector.receives is not None, connector.polls is not None]
    if connector.polls:
        assert connector.polls.streams
        assert connector.polls.interval > 0


@pytest.mark.parametrize("name", NAMES)
def test_it_takes_what_its_manifest_says(name: str) -> None:
    connector, manifest = _connect(name), registry.manifest(name)
    declared = {taken.type: taken.once for taken in manifest.takes}
    taken = _takes(connector)
    if ANY not in declared:
        assert taken == set(declared)
        assert taken <= set(COMMANDS)
    for type_ in taken:
        assert connector.sends is not None
        once = connector.sends.idempotency(type_)
        assert isinstance(once, Idempotency)
        assert declared.get(type_, declared.get(ANY)) in (once, "settings")
        assert connector.sends.limits.timeout > 0


@pytest.mark.parametrize("name", NAMES)
def test_it_names_people_as_its_manifest_says(name: str) -> None:
    assert _connect(name).knows_persons == (registry.manifest(name).people == "persons")


@pytest.mark.parametrize("name", NAMES)
def test_it_looks_up_only_what_is_marked(name: str) -> None:
    """Class A and C need no `find`; a class B without one would leave every doubt to a person."""
    connector = _connect(name)
    for type_ in _takes(connector):
        assert connector.sends is not None
        if connector.sends.idempotency(type_) is Idempotency.LOOKUP:
            assert callable(connector.sends.find)


@pytest.mark.parametrize("name", NAMES)
def test_it_emits_what_its_manifest_says(name: str) -> None:
    connector, declared = _connect(name), set(registry.manifest(name).emits)
    emitted = {fact.type for sample in samples(name) for fact in sample.told(connector) if isinstance(fact, Fact)}
    if ANY in declared:
        assert emitted
    else:
        assert emitted == declared, "each type that is declared needs a sample, and the other way round"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.connector}-{sample.file.stem}")
def test_a_sample_says_the_same_each_time(sample: Sample) -> None:
    first, again = sample.told(_connect(sample.connector)), sample.told(_connect(sample.connector))
    assert [as_yaml(fact) for fact in first] == sample.expected
    assert event_ids(first) == event_ids(again)
    assert len(set(event_ids(first))) == len(event_ids(first))
    assert first == again


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.connector}-{sample.file.stem}")
def test_a_sample_s_data_fits_the_catalogue(sample: Sample) -> None:
    for fact in sample.told(_connect(sample.connector)):
        if isinstance(fact, Fact):
            event_spec(fact.type).model.model_validate(fact.data)
            assert fact.time.tzinfo is not None


@pytest.mark.parametrize("name", [name for name in NAMES if registry.manifest(name).learns in ("webhook", "both")])
def test_a_push_must_be_signed(name: str) -> None:
    connector = _connect(name)
    assert connector.receives is not None
    pushes = [delivery(sample.file) for sample in samples(name) if sample.file.suffix == ".http"]
    assert pushes
    for push in [*pushes, Delivery({}, b"", RECEIVED), Delivery({}, b"{}", RECEIVED)]:
        with pytest.raises(RejectedError):
            connector.receives.verify(push)


@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_nobody_reads_is_refused(name: str) -> None:
    given = instance(name)
    wrong = Instance(given.name, given.use, {**given.settings, "no_such_setting": 1}, timezone=given.timezone)
    with pytest.raises(FatalError) as caught:
        registry.connect(wrong)
    assert caught.value.code == "HUB-E4010"
    assert "no_such_setting" in caught.value.message("en")


@pytest.mark.parametrize("name", NAMES)
def test_what_the_manifest_says_of_settings_is_true(name: str) -> None:
    """Each setting that is required is missed when it is taken away, and none of the sample's is unnamed."""
    given, manifest = instance(name), registry.manifest(name)
    named = {setting.name.split(".")[0] for setting in manifest.settings}
    assert set(given.settings) - {"use"} <= named
    for setting in manifest.settings:
        without = _without(given.settings, setting.name.split("."))
        if setting.required and without != given.settings:
            with pytest.raises(FatalError):
                registry.connect(Instance(given.name, given.use, without, timezone=given.timezone))


def _without(settings: Mapping[str, Any], path: list[str]) -> dict[str, Any]:
    """The settings without one of them."""
    kept = dict(settings)
    if len(path) == 1:
        kept.pop(path[0], None)
    elif path[0] in kept:
        kept[path[0]] = _without(kept[path[0]], path[1:])
    return kept


@pytest.mark.parametrize(
    "sample", [sample for sample in SAMPLES if sample.asks], ids=lambda sample: f"{sample.connector}-{sample.file.stem}"
)
def test_a_command_that_needs_no_system_has_one_effect(sample: Sample) -> None:
    connector = _connect(sample.connector)
    first, again = sample.effect(connector), sample.effect(connector)
    wanted = yaml.safe_load(sample.file.read_text("utf-8"))["effect"]["id"]
    assert first.id == again.id == wanted
