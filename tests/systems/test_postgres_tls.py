"""The cluster's PostgreSQL, by the files of docker/: it talks TLS alone, and the hub to no other server than that one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError

from tests.cluster.compose import DOCKER
from tests.cluster.database import secured

pytestmark = pytest.mark.systems


def authority(folder: Path) -> Path:
    command = ["sh", str(DOCKER / "certificates.sh"), str(folder), "postgres,127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def answers(url: URL) -> bool:
    engine = create_engine(url)
    try:
        with engine.connect() as conn:
            return bool(conn.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar())
    finally:
        engine.dispose()


def test_no_password_goes_anywhere_but_to_the_database(tmp_path: Path) -> None:
    mine, strangers = authority(tmp_path / "tls"), authority(tmp_path / "strangers")
    (tmp_path / "postgres").mkdir()
    server, ledger, _ = secured(tmp_path / "postgres", mine, "a-password")
    url = make_url(ledger)
    try:
        assert answers(url)
        for wrong, reason in (
            ({"sslmode": "disable"}, "no encryption"),
            ({"sslrootcert": str(strangers / "ca.pem")}, "certificate verify failed"),
        ):
            with pytest.raises(OperationalError, match=reason):
                answers(url.update_query_dict(wrong))
        with pytest.raises(OperationalError, match="does not match host name"):
            answers(url.set(host="localhost"))
    finally:
        server.stop()
