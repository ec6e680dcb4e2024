"""People's names follow the file."""

from __future__ import annotations

import os
from pathlib import Path

from hub.web.pages import PeopleFile

FIRST = "departments: {d: {name: {zh: 交付部, en: Delivery}}}\npeople: {li.lei: {name: 李雷, department: d}}\n"


def test_names_change_when_the_file_does(tmp_path: Path) -> None:
    file = tmp_path / "people.yaml"
    people = PeopleFile(file)
    assert dict(people) == {}
    file.write_text(FIRST, "utf-8")
    assert people["person/li.lei"].name == "李雷"
    assert people["person/li.lei"].department == {"zh-CN": "交付部", "en": "Delivery"}
    file.write_text("people: {lin.tao: {name: 林涛}}\n", "utf-8")
    assert list(people) == ["person/lin.tao"]
    file.write_text("people: [", "utf-8")
    os.utime(file, ns=(1, 1))
    assert list(people) == ["person/lin.tao"]
