"""docker/'s Compose files: what can be said of them without an engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.engine import make_url

from hub.log.topics import MAX_REPLICAS
from tests.cluster.compose import DOCKER, kafka_properties, services

SECRETS = {"POSTGRES_PASSWORD": "postgres-secret", "KAFKA_PASSWORD": "kafka-secret"}
FILES = ("compose.yaml", "cluster.yaml")
HUB = "baton-hub:0.1.0"
READ = set(re.findall(r"HUB_[A-Z_]+", (DOCKER.parent / "hub" / "home.py").read_text("utf-8")))
"""The variables that a home reads."""
Service = Mapping[str, Any]
ALL = [(file, name) for file in FILES for name in services(file, SECRETS)]


def service(file: str, name: str) -> Service:
    return services(file, SECRETS)[name]


def hubs(file: str) -> dict[str, Service]:
    return {name: one for name, one in services(file, SECRETS).items() if one["image"] == HUB}


@pytest.mark.parametrize(("file", "name"), ALL)
def test_every_service_is_pinned_bounded_unprivileged_and_watched(file: str, name: str) -> None:
    one = service(file, name)
    image, _, tag = one["image"].rpartition(":")
    assert image
    assert re.search(r"\d+\.\d+", tag), f"{one['image']} names no version"
    assert int(one["user"].partition(":")[0]) > 0
    assert one["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in one["security_opt"]
    assert not one.get("privileged")
    assert one["mem_limit"]
    assert one["restart"] == "unless-stopped"
    assert one["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize(("file", "name"), ALL)
def test_nothing_but_the_gateway_is_published_and_that_on_this_machine(file: str, name: str) -> None:
    published = service(file, name).get("ports", [])
    assert not published or name in ("gateway", "entry")
    assert all(port.startswith("127.0.0.1:") for port in published), "what ends TLS stands before it"


@pytest.mark.parametrize("file", FILES)
def test_every_variable_that_is_set_is_one_that_the_hub_reads(file: str) -> None:
    found = {variable for one in hubs(file).values() for variable in one["environment"]}
    assert found <= READ, f"not read: {found - READ}"
    assert {"HUB_LEDGER", "HUB_BOARDS"} <= found


@pytest.mark.parametrize("file", FILES)
def test_no_secret_stands_in_a_file(file: str) -> None:
    text = (DOCKER / file).read_text("utf-8")
    for line in text.splitlines():
        if re.search(r"PASSWORD|SECRET|postgresql\+psycopg://|user_hub", line) and not line.lstrip().startswith("#"):
            assert "${" in line, line
    with pytest.raises(KeyError):
        services(file, {})


@pytest.mark.parametrize("file", FILES)
def test_state_lies_in_volumes_of_its_own(file: str) -> None:
    named = yaml.safe_load((DOCKER / file).read_text("utf-8"))["volumes"]
    kept: list[str] = []
    for name, one in services(file, SECRETS).items():
        places = {target.removesuffix(":ro"): source for source, _, target in _mounts(one)}
        state = {
            "apache/kafka:4.3.0": "/var/lib/kafka/data", "postgres:17.5-bookworm": "/var/lib/postgresql/data",
            HUB: "/var/lib/hub",
        }.get(one["image"])  # fmt: skip
        if state is not None:
            assert places[state] in named, f"{name} loses what it knows with its container"
            kept.append(places[state])
    assert len(kept) == len(set(kept)), "two share a folder that each takes for its own"


def _mounts(one: Service) -> list[tuple[str, str, str]]:
    return [mount.partition(":") for mount in one.get("volumes", [])]


@pytest.mark.parametrize("file", FILES)
def test_what_is_mounted_from_here_is_here_or_made_by_the_reader(file: str) -> None:
    ignored = (DOCKER / ".gitignore").read_text("utf-8").split()
    for one in services(file, SECRETS).values():
        for source, _, target in _mounts(one):
            if source.startswith("./"):
                assert target.endswith(":ro"), source
                top = Path(source).parts[0]
                assert (DOCKER / source).is_file() or f"{top}/" in ignored, source


def test_the_programs_of_a_cluster_are_those_of_hub_up() -> None:
    found = [one["command"][:3] for one in hubs("cluster.yaml").values()]
    assert sorted(module for _, _, module in found) == [
        *["connectors"] * 2,
        *["processor"] * 3,
        *["projector"] * 2,
    ]
    copies = [one["environment"].get("HUB_COPY") for one in hubs("cluster.yaml").values()]
    assert sorted(filter(None, copies)) == ["worker-1", "worker-2", "worker-3"]


def test_a_door_and_its_boards_meet_at_one_socket() -> None:
    for number in (1, 2):
        door, boards = (service("cluster.yaml", f"{name}-{number}") for name in ("connectors", "projections"))
        assert door["command"][-1] == boards["command"][-1] == "/run/boards/boards.sock"
        assert f"boards-{number}:/run/boards" in door["volumes"]
        assert f"boards-{number}:/run/boards" in boards["volumes"]
        assert door["network_mode"] == f"service:gateway-{number}", "its loopback is the gateway's"


def test_brokers_know_each_other_and_keep_every_record_three_times() -> None:
    brokers = {name: one for name, one in services("cluster.yaml", SECRETS).items() if name.startswith("kafka-")}
    settings = [kafka_properties(one["environment"]) for one in brokers.values()]
    assert len(settings) == MAX_REPLICAS
    assert [one["node.id"] for one in settings] == ["1", "2", "3"]
    for number, one in enumerate(settings, 1):
        assert one["controller.quorum.voters"] == ",".join(f"{n}@kafka-{n}:9094" for n in (1, 2, 3))
        assert one["advertised.listeners"] == f"CLIENT://kafka-{number}:9092,BROKER://kafka-{number}:9093"
        assert (one["default.replication.factor"], one["min.insync.replicas"]) == ("3", "2")
        assert "PLAINTEXT" not in one["listener.security.protocol.map"]
        assert 'user_hub="kafka-secret"' in one["listener.name.client.plain.sasl.jaas.config"]


def test_the_image_runs_as_nobody_special_with_locked_packages() -> None:
    lines = (DOCKER / "Dockerfile").read_text("utf-8").splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base) for base in bases)
    assert "USER 10001:10001" in lines
    assert any("--constraint requirements.lock" in line for line in lines)
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert all((DOCKER.parent / source).exists() for sources in copied for source in sources)


def test_a_cluster_s_database_takes_tls_alone_and_the_hub_asks_for_its_name() -> None:
    """A20: the hub's password went to whoever answered under the database's name."""
    database = service("cluster.yaml", "postgres")
    assert "-cssl=on" in database["command"]
    assert "./tls/postgres:/etc/postgresql/tls:ro" in database["volumes"]
    lets_in = [line.split()[0] for line in (DOCKER / "hba.conf").read_text("utf-8").splitlines() if line[:1] != "#"]
    assert lets_in == ["local", "hostssl"]
    for one in hubs("cluster.yaml").values():
        for name in ("HUB_LEDGER", "HUB_BOARDS"):
            assert make_url(one["environment"][name]).query == {
                "sslmode": "verify-full",
                "sslrootcert": "/home-of-hub/ca.pem",
            }
