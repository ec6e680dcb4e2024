"""`hub config show` and `hub explain`: each setting with its origin, and the meaning of an error code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, say, speech, text
from hub.errors import text_of, texts

if TYPE_CHECKING:
    from hub.home import Home

MASK = "***"
ENVIRONMENT_VARIABLES: Mapping[tuple[str | int, ...], str] = {
    ("kafka", "bootstrap"): "HUB_KAFKA",
    ("ledger",): "HUB_LEDGER",
    ("boards",): "HUB_BOARDS",
    ("web", "port"): "HUB_WEB_PORT",
}
_PRIVATE = re.compile(r"secret|password|token|auth|credential|private|key", re.IGNORECASE)
config = typer.Typer(no_args_is_help=True, help="设置 · settings")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(config, name="config")
    app.command("explain", help="一个错误代码的含义和办法 · what a code means, and what to do")(explain)


@config.command("show")
def show(
    origin: Annotated[bool, typer.Option("--origin", help="连同出处 · and where each comes from")] = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """现在起作用的设置，密码不显示 · the settings that count, secrets hidden."""
    from hub.home import Home

    rows = list(settings(Home.load(home)))
    if json:
        answer([{"setting": name, "value": value, "origin": where} for name, value, where in rows])
        return
    for name, value, where in rows:
        say(f"  {name} = {value}" + (f"    # {where}" if origin else ""))


def settings(home: Home) -> Iterator[tuple[str, Any, str]]:
    """Each setting with its value and its origin: a place in hub.yaml, a variable, or the default."""
    yield "data", str(home.data), "HUB_DATA" if home.environ.get("HUB_DATA") else text("默认", "default")
    values = home.config.model_dump(by_alias=True, exclude={"connectors"})
    values["connectors"] = (home.located.value or {}).get("connectors") or {}
    for path, value in _leaves((), values):
        variable = ENVIRONMENT_VARIABLES.get(path, "")
        if home.environ.get(variable):
            yield _dotted(path), _hidden(home, home.environ[variable]), variable
        elif path in home.located.places:
            private = any(_PRIVATE.search(part) for part in path if isinstance(part, str))
            yield _dotted(path), MASK if private else _hidden(home, value), str(home.located.places[path])
        else:
            yield _dotted(path), value, text("默认", "default")


def _leaves(path: tuple[str | int, ...], value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path, value
        return
    for name, each in inner:
        yield from _leaves((*path, name), each)


def _hidden(home: Home, value: Any) -> Any:
    """The value with secrets masked: the values of secret variables, and a password in a URL."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    from hub.config.yaml_places import mask

    if not isinstance(value, str):
        return value
    shown = mask(str(value), home.secrets)
    if "://" not in shown or "@" not in shown:
        return shown
    try:
        return make_url(shown).render_as_string(hide_password=True)
    except ArgumentError:
        return MASK


def _dotted(path: tuple[str | int, ...]) -> str:
    from hub.config.validation import dotted

    return dotted(path)


def explain(
    code: Annotated[str, typer.Argument(help="HUB-E4003")],
    json: JsonOption = False,
) -> None:
    """Print what a code means and what to do about it."""
    name = code.upper() if code.upper() in texts() else f"HUB-{code.upper()}"
    if name not in texts():
        raise typer.BadParameter(text("没有代码 {}", "there is no code {}").format(code))
    texts_of_code = text_of(name, speech.language)
    if json:
        answer({"code": name, **texts_of_code})
        return
    meaning, fix = (texts_of_code[part].replace("{{", "{").replace("}}", "}") for part in ("say", "fix"))
    say(*f"{name}  {meaning}".split("\n"), f"  → {fix}")
