"""YAML files of the user's, read with the place of every value, so that an error can point at it.

The YAML is 1.2's core: `yes` and `2026-11-20` are texts, `007` is a text, only `true` and `false` are truth values. Narrower
than the core: `+86138` is a text, and a number that would not be read as it is written (`12E5`, `1e400`, twenty digits) is a
mistake, as it is mostly somebody's id. Anchors, aliases and merge keys work. `${env:NAME}` in a text is replaced here, and
nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path as FilePath
from typing import Any

import yaml

from hub.config.expecting import Words, both
from hub.config.strict_json import is_whole
from hub.errors import FatalError, Place
from hub.runtime.logs import forms, login_secrets

MAX_BYTES = 1024 * 1024
MAX_VALUES = 50_000
"""With aliases written out: a file of a few lines can otherwise hold more than a machine does."""

Path = tuple[str | int, ...]
_ENV = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_INT64 = 2**63
_SECRET = re.compile(r"secret|password|passwd|token|credential|private|api_?key|_key$", re.IGNORECASE)


class Filled(str):
    """A text in which `${env:NAME}` was replaced. `spans` are (start, end, length before) of what was filled in."""

    spans: tuple[tuple[int, int, int], ...] = ()

    def is_filled(self, at: int) -> bool:
        """Whether this character came from the environment: no expression starts there."""
        return any(start <= at < end for start, end, _ in self.spans)

    def original(self, at: int) -> int:
        """Where this character stood before filling in."""
        return at + sum(before - (end - start) for start, end, before in self.spans if end <= at)


@dataclass
class Located:
    """A file's value (None: nothing could be read), what is wrong with it, and the secrets that were filled in."""

    file: str
    value: Any = None
    errors: list[FatalError] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    places: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    lacking: dict[Path, FatalError] = field(default_factory=dict)
    """Those of the errors that tell of a missing environment variable, by where it is named."""
    written: dict[Path, str] = field(default_factory=dict)
    """Numbers that are written otherwise than their value would be: 12.50."""

    def place(self, path: Path = ()) -> Place:
        """Where the value at a path stands, of a text its first character; of what is not there, where it would stand."""
        for end in range(len(path), -1, -1):
            found = self.places.get(path[:end])
            if found is not None:
                return found
        return Place(self.file)

    def key_place(self, path: Path) -> Place:
        """Where the key at the end of a path stands."""
        return self.keys.get(path) or self.place(path)

    def below(self, path: Path) -> Callable[[Path], Place]:
        """`place` for paths that start at this one."""
        return lambda inner: self.place((*path, *inner))

    def sound(self) -> Located:
        """Itself; raises the first error that it has."""
        if self.errors:
            raise self.errors[0]
        return self


def read_yaml(file: FilePath, name: str, environ: Mapping[str, str]) -> Located:
    """Read a file; `name` is how places call it. Never raises: what is wrong with it stands in `errors`."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        return Located(name, errors=[FatalError("HUB-E3008", place=Place(name), reason=_reason(error))])
    return read_bytes(raw, name, environ)


def read_bytes(raw: bytes, name: str, environ: Mapping[str, str]) -> Located:
    """As `read_yaml`, for a file's bytes."""
    if len(raw) > MAX_BYTES:
        return Located(name, errors=[FatalError("HUB-E3008", place=Place(name), reason=f"> {MAX_BYTES} bytes")])
    try:
        return parse_yaml(decoded(raw, name), name, environ)
    except FatalError as error:
        return Located(name, errors=[error])


def decoded(raw: bytes, name: str) -> str:
    """A file's text, without a byte order mark; raises FatalError that says which encoding it seems to have if not UTF-8."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FatalError("HUB-E3008", place=Place(name), reason=_encoding(raw, error)) from error
    if "\0" in text:
        raise FatalError("HUB-E3008", place=Place(name), reason=_encoding(raw, None))
    return text


def _encoding(raw: bytes, error: UnicodeDecodeError | None) -> Words:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or raw.count(0) > len(raw) // 4:
        return both("它是 UTF-16，另存为 UTF-8", "it is UTF-16; save it as UTF-8")
    if error is None:
        return both("其中有空字符", "there is a NUL in it")
    try:
        raw.decode("gb18030")
    except UnicodeDecodeError:
        return both(str(error), str(error))
    line = raw[: error.start].count(b"\n") + 1
    return both(f"它像是 GBK（第 {line} 行），另存为 UTF-8", f"it looks like GBK (line {line}); save it as UTF-8")


def parse_yaml(text: str, name: str, environ: Mapping[str, str]) -> Located:
    """As `read_yaml`, for a text."""
    located = Located(name)
    try:
        node = yaml.compose(text, Loader=_Loader)
        located.value = _Builder(located, text.splitlines(), environ).build(node, ()) if node is not None else None
    except FatalError as error:
        located.errors.append(error)
    except (yaml.YAMLError, RecursionError) as error:
        located.errors.append(_unreadable(error, name))
    return located


def exact_number(text: str) -> int | float | None:
    """The number that a text writes out, None where a number of JSON or CEL would be another one."""
    if text.lstrip("-").isdecimal():
        whole = int(text) if len(text) <= len(str(-_INT64)) else _INT64
        return whole if -_INT64 <= whole < _INT64 else None
    if "e" in text.lower():  # seldom a number: 12E5 is an article
        return None
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else None


def mask(text: str, secrets: set[str]) -> str:
    """The text without any secret of these."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def mask_facts(facts: Mapping[str, Any], secrets: set[str]) -> dict[str, Any]:
    """An error's facts without any secret; of one that reads differently by language, in every language."""
    return {name: _masked(fact, secrets) for name, fact in facts.items()}


def _masked(fact: Any, secrets: set[str]) -> Any:
    if isinstance(fact, Mapping):
        return {language: mask(str(text), secrets) for language, text in fact.items()}
    return mask(fact, secrets) if isinstance(fact, str) else fact


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _unreadable(error: Exception, name: str) -> FatalError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = Place(name, mark.line + 1, mark.column + 1) if mark else Place(name)
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "nesting")
    if "'\\t'" in problem:
        return FatalError("HUB-E3004", place=place)
    context = getattr(error, "context", None)
    return FatalError("HUB-E3002", place=place, reason=f"{problem} ({context})" if context else problem)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: fewer surprises than 1.1, whose `no` is false and whose `1:30` is 90."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own name


for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False|TRUE|FALSE", "tTfF"),
    ("int", r"-?(?:0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", "-0123456789"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first.replace("\0", ""), ""]
    )


def _merges(key: yaml.Node) -> bool:
    return key.tag.endswith(":merge")


class _Builder:
    """Makes plain values of YAML's nodes, and notes where each came from."""

    def __init__(self, located: Located, lines: list[str], environ: Mapping[str, str]) -> None:
        self.located, self.lines, self.environ = located, lines, environ
        self.left = MAX_VALUES
        self.open: set[int] = set()

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.left -= 1
        if self.left < 0 or id(node) in self.open:
            raise FatalError("HUB-E3002", place=self._at(node), reason="aliases without end")
        self.located.places[path] = self._place(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self.open.add(id(node))
        built = self._list(node, path) if isinstance(node, yaml.SequenceNode) else self._map(node, path)
        self.open.discard(id(node))
        return built

    def _list(self, node: yaml.SequenceNode, path: Path) -> list[Any]:
        self._core_tag(node, "seq")
        return [self.build(inner, (*path, at)) for at, inner in enumerate(node.value)]

    def _map(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        self._core_tag(node, "map")
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not _merges(key_node):
                key = self._key(key_node)
                if key in made:
                    self._wrong("HUB-E3003", key_node, key=key)
                self._entry(made, path, key_node, value_node)
        for key_node, value_node in self._brought(node):
            if self._key(key_node) not in made:
                self._entry(made, path, key_node, value_node)
        return made

    def _entry(self, made: dict[str, Any], path: Path, key_node: yaml.Node, value_node: yaml.Node) -> None:
        key = self._key(key_node)
        self.located.keys[(*path, key)] = self._at(key_node)
        made[key] = self.build(value_node, (*path, key))

    def _brought(self, node: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """The pairs that `<<` brings; of several that bring the same key, the first counts."""
        for key, value in node.value:
            if _merges(key):
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode) or id(source) in self.open:
                        raise FatalError("HUB-E3002", place=self._at(source), reason="<< needs a map")
                    self.left -= 1 + len(source.value)
                    if self.left < 0:
                        raise FatalError("HUB-E3002", place=self._at(source), reason="<< without end")
                    yield from (pair for pair in source.value if not _merges(pair[0]))
                    yield from self._brought(source)

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise FatalError("HUB-E3002", place=self._at(node), reason="a key must be a text")
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        if not is_whole(node.value):
            raise FatalError("HUB-E3002", place=self._at(node), reason="NUL, \\ud800…")
        kind = node.tag.rpartition(":")[2]
        if kind == "bool":
            return node.value.lower() == "true"
        if kind == "null":
            return None
        if kind in ("int", "float"):
            return self._number(node, path)
        self._core_tag(node, "str")
        text = self._filled(node, str(node.value), path) if "${env:" in node.value else str(node.value)
        self.located.secrets |= forms(login_secrets(text))
        return text

    def _number(self, node: yaml.ScalarNode, path: Path) -> int | float | str:
        """A number as it is written, or a mistake: a digit less may be another person."""
        text = str(node.value)
        number = exact_number(text)
        if number is None:
            self._wrong("HUB-E3012", node, text=text[:60], read=float(text))
            return text
        if str(number) != text:
            self.located.written[path] = text
        return number

    def _filled(self, node: yaml.ScalarNode, text: str, path: Path) -> str:
        pieces, spans, done, length = list[str](), list[tuple[int, int, int]](), 0, 0
        for found in _ENV.finditer(text):
            value = self._variable(found[1], path, found.start())
            pieces += [text[done : found.start()], value]
            start = length + found.start() - done
            spans.append((start, start + len(value), len(found[0])))
            done, length = found.end(), start + len(value)
        if not spans:
            self._wrong("HUB-E3009", node, text=text)
        filled = Filled("".join([*pieces, text[done:]]))
        filled.spans = tuple(spans)
        return filled

    def _variable(self, name: str, path: Path, at: int) -> str:
        value = self.environ.get(name)
        if value is None:
            place = self.located.place(path)
            place = Place(place.file, place.line, place.column + at)
            self.located.lacking[path] = FatalError("HUB-E3006", place=place, name=name)
            self.located.errors.append(self.located.lacking[path])
            return ""
        if value and (_SECRET.search(name) or (path and _SECRET.search(str(path[-1])))):
            self.located.secrets |= forms([value])
        return value

    def _core_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != f"tag:yaml.org,2002:{kind}":
            raise FatalError("HUB-E3002", place=self._at(node), reason=f"tag {node.tag}")

    def _wrong(self, code: str, node: yaml.Node, **seen: Any) -> None:
        self.located.errors.append(FatalError(code, place=self._at(node), **seen))

    def _at(self, node: yaml.Node) -> Place:
        return Place(self.located.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _place(self, node: yaml.Node) -> Place:
        """Of a text, the place of its first character: behind the quote, or on the line after `|`."""
        style = getattr(node, "style", None)
        line, column = node.start_mark.line, node.start_mark.column
        if style in ("|", ">"):
            following = self.lines[line + 1] if line + 1 < len(self.lines) else ""
            return Place(self.located.file, line + 2, len(following) - len(following.lstrip()) + 1)
        quoted = isinstance(node, yaml.ScalarNode) and style in ('"', "'")
        return Place(self.located.file, line + 1, column + 1 + quoted)
