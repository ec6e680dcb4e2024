"""PostgreSQL as a cluster has it: flushed to disk, TLS for everybody, a password for the hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from tests.cluster.compose import DOCKER
from tests.postgres_server import PostgresServer

SETTINGS = {
    "ssl": "on",
    "ssl_cert_file": "server.pem",
    "ssl_key_file": "server.key",
    "ssl_min_protocol_version": "TLSv1.2",
}


def secured(folder: Path, tls: Path, password: str) -> tuple[PostgresServer, str, str]:
    """A running server, and the addresses of the ledger and of the boards on it."""
    server = PostgresServer(folder, durable=True)
    server.start()
    ledger, boards = server.database(), server.database()
    for source, target in (("certificate.pem", "server.pem"), ("key.pem", "server.key")):
        shutil.copy(tls / "postgres" / source, server.data / target)
        (server.data / target).chmod(0o600)
        if os.geteuid() == 0:
            owner = server.data.stat()
            os.chown(server.data / target, owner.st_uid, owner.st_gid)
    engine = create_engine(ledger, isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(text(f"ALTER ROLE hub PASSWORD '{password}'"))
        for name, value in SETTINGS.items():
            conn.execute(text(f"ALTER SYSTEM SET {name} = '{value}'"))
        shutil.copyfile(DOCKER / "hba.conf", server.data / "pg_hba.conf")
        conn.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()
    return server, _signed_in(ledger, password, tls), _signed_in(boards, password, tls)


def _signed_in(url: str, password: str, tls: Path) -> str:
    proved = make_url(url).set(
        password=password, query={"sslmode": "verify-full", "sslrootcert": str((tls / "ca.pem").resolve())}
    )
    return proved.render_as_string(hide_password=False)
