"""docker/kubernetes: what can be said of it without a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.compose import DOCKER, services
from tests.unit.docker.test_compose import READ, SECRETS

FOLDER = DOCKER / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text("utf-8"))
OBJECTS = [one for file in KUSTOMIZATION["resources"] for one in yaml.safe_load_all((FOLDER / file).read_text("utf-8"))]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in OBJECTS:
        if one["kind"] == "StatefulSet":
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def containers() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{pod}/{one['name']}", one) for pod, spec in pods() for one in spec["containers"]]


@pytest.mark.parametrize(("name", "one"), containers())
def test_every_container_is_pinned_closed_and_bounded(name: str, one: dict[str, Any]) -> None:
    images = {service["image"] for service in services("cluster.yaml", SECRETS).values()}
    assert one["image"] in images, f"{name}: docker/cluster.yaml has another version"
    closed = one["securityContext"]
    assert closed["readOnlyRootFilesystem"]
    assert not closed["allowPrivilegeEscalation"]
    assert closed["capabilities"] == {"drop": ["ALL"]}
    assert one["resources"]["limits"]["memory"]
    assert one.keys() & {"startupProbe", "readinessProbe", "livenessProbe"}


@pytest.mark.parametrize(("name", "spec"), list(pods()))
def test_every_mount_has_its_volume_and_nobody_is_root(name: str, spec: dict[str, Any]) -> None:
    claims = next(
        [claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", ())]
        for one in OBJECTS
        if one["kind"] == "StatefulSet" and one["metadata"]["name"] == name
    )
    there = {volume["name"] for volume in spec["volumes"]} | set(claims)
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    for one in spec["containers"]:
        assert {mount["name"] for mount in one["volumeMounts"]} <= there
        if one["image"].startswith("baton-hub"):
            assert "/var/lib/hub" in {mount["mountPath"] for mount in one["volumeMounts"]}


def test_variables_are_those_that_the_hub_reads_and_no_secret_is_given() -> None:
    lines = (FOLDER / "secret.env.example").read_text("utf-8").splitlines()
    pairs = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    set_here = {variable["name"] for _, one in containers() for variable in one.get("env", ())}
    assert {name for name in {*pairs, *set_here} if name.startswith("HUB_")} <= READ
    assert {name for name, value in pairs.items() if value} == {"HUB_KAFKA"}
    assert {"HUB_LEDGER", "HUB_BOARDS", "KAFKA_PASSWORD"} <= set(pairs)


def test_only_signed_pushes_come_in_from_outside() -> None:
    [ingress] = [one for one in OBJECTS if one["kind"] == "Ingress"]
    paths = [path["path"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    assert paths == ["/webhooks/"]
    [policy] = [one for one in OBJECTS if one["kind"] == "NetworkPolicy"]
    assert policy["spec"]["ingress"] == [{"ports": [{"port": "pushes"}]}]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]} == {53, 443, 5432, 9092}


def test_the_gateway_passes_pushes_only_on_the_port_that_is_open() -> None:
    for file in ("gateway.conf", "entry.conf"):
        outside = re.split(r"^server \{", (DOCKER / file).read_text("utf-8"), flags=re.MULTILINE)[1]
        assert "listen 8602;" in outside
        assert re.findall(r"location (.*) \{", outside) == ["/webhooks/", "= /alive", "/"]
        assert outside.rstrip().endswith("return 404;\n    }\n}")
