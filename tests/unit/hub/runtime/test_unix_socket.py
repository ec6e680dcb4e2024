from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hub.errors import FatalError
from hub.runtime import files


@pytest.mark.parametrize("folder", ["run", "集成" * 40, "/".join(["深" * 60] * 8)])
def test_a_socket_listens_and_answers_however_long_its_path_is(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "boards.sock"
    for _ in range(2):  # one that was left behind makes room
        with files.listening_socket(path) as server, socket.socket(socket.AF_UNIX) as client:
            client.connect(files.socket_name(path))
            taken, _ = server.accept()
            with taken:
                client.sendall(b"x")
                assert taken.recv(1) == b"x"
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o600
    assert len(files.socket_name(path).encode()) <= files.MAX_SOCKET_NAME_BYTES


def test_where_the_system_has_no_short_names_it_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "DESCRIPTOR_FOLDER", tmp_path / "none")
    files.check_socket_path(Path("/run/boards.sock"))
    with pytest.raises(FatalError, match="HUB-E1024") as refused:
        files.check_socket_path(tmp_path / ("集" * 40) / "boards.sock")
    assert refused.value.seen["length"] > files.MAX_SOCKET_NAME_BYTES
