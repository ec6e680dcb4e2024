from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hub import unix_socket
from hub.errors import FatalError


@pytest.mark.parametrize("folder", ["run", "集成" * 40, "/".join(["深" * 60] * 8)])
def test_a_socket_listens_and_answers_however_long_its_path_is(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "boards.sock"
    for _ in range(2):  # one that was left behind makes room
        with unix_socket.listening(path) as server, socket.socket(socket.AF_UNIX) as client:
            client.connect(unix_socket.name_of(path))
            taken, _ = server.accept()
            with taken:
                client.sendall(b"x")
                assert taken.recv(1) == b"x"
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o600
    assert len(unix_socket.name_of(path).encode()) <= unix_socket.LONGEST


def test_where_the_system_has_no_short_names_it_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_socket, "DESCRIPTORS", tmp_path / "none")
    unix_socket.check(Path("/run/boards.sock"))
    with pytest.raises(FatalError, match="HUB-E1024") as refused:
        unix_socket.check(tmp_path / ("集" * 40) / "boards.sock")
    assert refused.value.seen["length"] > unix_socket.LONGEST
