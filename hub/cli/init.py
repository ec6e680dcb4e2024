"""`hub init`: creates a home from a template, ready to run: fresh secrets in `.env`, nothing secret in git."""

from __future__ import annotations

import base64
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from hub.cli.terminal import JsonOption, answer, program, say, speech, text
from hub.errors import FatalError
from hub.runtime.program import users_umask

TEMPLATES = Path(__file__).parents[1] / "templates"
GITIGNORE = ".env\n.hub/\n"
SECRET_SUFFIX = "_SECRET"  # noqa: S105  # the suffix of such variables' names
SECRET_BYTES = 32
PLACEHOLDER_URL = "http://127.0.0.1:9"
"""Placeholder for an address that only the user knows: nothing answers there."""
_VARIABLE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init", help="新建主目录 · make a home")(init)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="新建或空的目录 · a folder that is new or empty")],
    template: Annotated[
        str, typer.Option("--template", help="crm-to-project | empty | acme | demo")
    ] = "crm-to-project",
    json: JsonOption = False,
) -> None:
    """Make a home: settings, people, rules, `.env` with a fresh secret for each system that pushes. Refuses a folder in use."""
    if template not in templates():
        raise typer.BadParameter(f"{template}: {', '.join(templates())}")
    if folder.exists() and (not folder.is_dir() or any(entry.name != ".git" for entry in folder.iterdir())):
        raise FatalError("HUB-E1021", home=folder)
    with users_umask():
        values = make(folder, template)
    missing = [name for name in values if not name.endswith(SECRET_SUFFIX)]
    if json:
        answer({"home": str(folder.resolve()), "template": template, "to_be_set": missing})
        return
    say(text("✔ 已建好 {}（模板 {}）", "✔ made {} (template {})").format(folder, template))
    if missing:
        say(text("  还要填 .env：{}", "  yet to be set in .env: {}").format(", ".join(missing)))
    hub, inside = program(below=folder), shlex.quote(str(folder))
    say(text("  下一步：", "  next: ") + f"cd {inside} && {hub} validate && {hub} up")


def templates() -> list[str]:
    """The names of the templates."""
    return sorted(entry.name for entry in TEMPLATES.iterdir() if (entry / "hub.yaml").is_file())


def make(folder: Path, template: str) -> dict[str, str]:
    """Fill a folder from a template. Returns the environment variables that it needs, with their values in the new `.env`."""
    copy(template, folder)
    (folder / "rules").mkdir(exist_ok=True)
    _set_name(folder / "hub.yaml", folder.resolve().name)
    named = dict.fromkeys(_VARIABLE.findall((folder / "hub.yaml").read_text("utf-8")))
    values = {name: _initial_value(name) for name in named}
    (folder / ".env.example").write_text(_lines(dict.fromkeys(values, "")), "utf-8")
    write_env(folder, values)
    (folder / ".gitignore").write_text(GITIGNORE, "utf-8")
    if not (folder / "README.md").exists():
        steps = (TEMPLATES / f"next_steps.{speech.language}.md").read_text("utf-8")
        (folder / "README.md").write_text(steps.replace("@NAME@", folder.resolve().name), "utf-8")
    return values


def copy(template: str, folder: Path) -> None:
    """Copy a template in the language of this terminal: a folder per language holds the files that differ."""
    for source in (TEMPLATES / template, TEMPLATES / speech.language / template):
        if source.is_dir():
            shutil.copytree(source, folder, dirs_exist_ok=True)


def _set_name(file: Path, name: str) -> None:
    """Name the hub after its folder, if the folder's name is a valid one."""
    content = file.read_text("utf-8")
    if _NAME.fullmatch(name):
        file.write_text(re.sub(r"(?m)^name: hub$", f"name: {name}", content), "utf-8")


def _initial_value(name: str) -> str:
    """A variable's first value: a fresh secret, a placeholder address, or `?` to be replaced."""
    if name.endswith(SECRET_SUFFIX):
        return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    return PLACEHOLDER_URL if name.endswith("_URL") else "?"


def _lines(values: Mapping[str, str]) -> str:
    """The content of an `.env` file."""
    entries = "".join(f"# {_about(name)}\n{name}={value}\n" for name, value in values.items())
    return f"# {text('密码和地址，不进 git', 'secrets and addresses; never in git')}\n{entries}"


def _about(name: str) -> str:
    if name.endswith(SECRET_SUFFIX):
        return text("推送的签名密钥，同样填到对方系统", "signs pushes; the pushing system needs the same")
    if name.endswith("_URL"):
        return text("对方系统的地址", "the address of that system")
    return text("对方系统的账号信息", "of our account over there")


def write_env(folder: Path, values: Mapping[str, str]) -> None:
    """Write a home's `.env`; replaces an existing one."""
    (folder / ".env").unlink(missing_ok=True)
    _write_private(folder / ".env", _lines(values))


def _write_private(file: Path, content: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(content)
