"""Reads YAML files with the place of every value, so that an error can point at it.

YAML 1.2's core schema: `yes`, `2026-11-20` and `007` are texts, only `true` and `false` are booleans. Stricter than the core
schema: `+86138` is a text, and a number that cannot be represented exactly (`12E5`, `1e400`, twenty digits) is a mistake, since it
is usually an id. Anchors, aliases and merge keys work. `${env:NAME}` in a text is replaced here, and nowhere else.
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
from hub.config.strict_json import is_storable
from hub.errors import FatalError, Place
from hub.runtime.logs import login_secrets, spellings

MAX_BYTES = 1024 * 1024
MAX_VALUES = 50_000
"""Values with aliases expanded: otherwise a file of a few lines could exceed the memory."""

Path = tuple[str | int, ...]
_ENV = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_INT64 = 2**63
_SECRET = re.compile(r"secret|password|passwd|token|credential|private|api_?key|_key$", re.IGNORECASE)


class Filled(str):
    """A text in which `${env:NAME}` was replaced. `spans`: (start, end, original length) of each replacement."""

    spans: tuple[tuple[int, int, int], ...] = ()

    def is_filled(self, at: int) -> bool:
        """Whether this character came from the environment, where no expression may start."""
        return any(start <= at < end for start, end, _ in self.spans)

    def original(self, at: int) -> int:
        """The offset of this character before the replacement."""
        return at + sum(before - (end - start) for start, end, before in self.spans if end <= at)


@dataclass
class Located:
    """A file's value (None: not readable), its mistakes, and the secrets that were filled in."""

    file: str
    value: Any = None
    errors: list[FatalError] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    places: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    lacking: dict[Path, FatalError] = field(default_factory=dict)
    """Path → the error about the environment variable that is missing there; a subset of `errors`."""
    written: dict[Path, str] = field(default_factory=dict)
    """Path → text of each number whose text differs from its value's: 12.50."""

    def place(self, path: Path = ()) -> Place:
        """The place of the value at a path, for a text of its first character; for a missing value, of its closest parent."""
        for end in range(len(path), -1, -1):
            place = self.places.get(path[:end])
            if place is not None:
                return place
        return Place(self.file)

    def key_place(self, path: Path) -> Place:
        """The place of the key at the end of a path."""
        return self.keys.get(path) or self.place(path)

    def below(self, path: Path) -> Callable[[Path], Place]:
        """`place` for paths that start at this one."""
        return lambda inner: self.place((*path, *inner))

    def sound(self) -> Located:
        """Itself; raises its first error, if any."""
        if self.errors:
            raise self.errors[0]
        return self


def read_yaml(file: FilePath, name: str, environ: Mapping[str, str]) -> Located:
    """Read a file; `name` is its name in places. Never raises: mistakes are in `errors`."""
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
    """A file's text, without a byte order mark; raises FatalError with the probable encoding if it is not UTF-8."""
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
    """The number in a text, None if JSON or CEL cannot represent it exactly."""
    if text.lstrip("-").isdecimal():
        integer = int(text) if len(text) <= len(str(-_INT64)) else _INT64
        return integer if -_INT64 <= integer < _INT64 else None
    if "e" in text.lower():  # usually no number: 12E5 is an article number
        return None
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else None


def mask(text: str, secrets: set[str]) -> str:
    """The text with all of these secrets masked."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def mask_facts(facts: Mapping[str, Any], secrets: set[str]) -> dict[str, Any]:
    """An error's facts with all secrets masked; localized facts in every language."""
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

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's attribute


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


def _is_merge(key: yaml.Node) -> bool:
    return key.tag.endswith(":merge")


class _Builder:
    """Builds plain values from YAML nodes, and records the place of each."""

    def __init__(self, located: Located, lines: list[str], environ: Mapping[str, str]) -> None:
        self.located, self.lines, self.environ = located, lines, environ
        self.remaining = MAX_VALUES
        self.open: set[int] = set()

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.remaining -= 1
        if self.remaining < 0 or id(node) in self.open:
            raise FatalError("HUB-E3002", place=self._at(node), reason="aliases without end")
        self.located.places[path] = self._place(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self.open.add(id(node))
        built = self._list(node, path) if isinstance(node, yaml.SequenceNode) else self._map(node, path)
        self.open.discard(id(node))
        return built

    def _list(self, node: yaml.SequenceNode, path: Path) -> list[Any]:
        self._require_core_tag(node, "seq")
        return [self.build(inner, (*path, at)) for at, inner in enumerate(node.value)]

    def _map(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        self._require_core_tag(node, "map")
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not _is_merge(key_node):
                key = self._key(key_node)
                if key in built:
                    self._wrong("HUB-E3003", key_node, key=key)
                self._entry(built, path, key_node, value_node)
        for key_node, value_node in self._merged(node):
            if self._key(key_node) not in built:
                self._entry(built, path, key_node, value_node)
        return built

    def _entry(self, built: dict[str, Any], path: Path, key_node: yaml.Node, value_node: yaml.Node) -> None:
        key = self._key(key_node)
        self.located.keys[(*path, key)] = self._at(key_node)
        built[key] = self.build(value_node, (*path, key))

    def _merged(self, node: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """The pairs merged by `<<`; if several have the same key, the first wins."""
        for key, value in node.value:
            if _is_merge(key):
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode) or id(source) in self.open:
                        raise FatalError("HUB-E3002", place=self._at(source), reason="<< needs a map")
                    self.remaining -= 1 + len(source.value)
                    if self.remaining < 0:
                        raise FatalError("HUB-E3002", place=self._at(source), reason="<< without end")
                    yield from (pair for pair in source.value if not _is_merge(pair[0]))
                    yield from self._merged(source)

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise FatalError("HUB-E3002", place=self._at(node), reason="a key must be a text")
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        if not is_storable(node.value):
            raise FatalError("HUB-E3002", place=self._at(node), reason="NUL, \\ud800…")
        kind = node.tag.rpartition(":")[2]
        if kind == "bool":
            return node.value.lower() == "true"
        if kind == "null":
            return None
        if kind in ("int", "float"):
            return self._number(node, path)
        self._require_core_tag(node, "str")
        text = self._filled(node, str(node.value), path) if "${env:" in node.value else str(node.value)
        self.located.secrets |= spellings(login_secrets(text))
        return text

    def _number(self, node: yaml.ScalarNode, path: Path) -> int | float | str:
        """The number exactly as written, else a mistake: one digit less may be another person's id."""
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
        for match in _ENV.finditer(text):
            value = self._variable(match[1], path, match.start())
            pieces += [text[done : match.start()], value]
            start = length + match.start() - done
            spans.append((start, start + len(value), len(match[0])))
            done, length = match.end(), start + len(value)
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
            self.located.secrets |= spellings([value])
        return value

    def _require_core_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != f"tag:yaml.org,2002:{kind}":
            raise FatalError("HUB-E3002", place=self._at(node), reason=f"tag {node.tag}")

    def _wrong(self, code: str, node: yaml.Node, **seen: Any) -> None:
        self.located.errors.append(FatalError(code, place=self._at(node), **seen))

    def _at(self, node: yaml.Node) -> Place:
        return Place(self.located.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _place(self, node: yaml.Node) -> Place:
        """The place of a value; for a text, of its first character: after the quote, or on the line after `|`."""
        style = getattr(node, "style", None)
        line, column = node.start_mark.line, node.start_mark.column
        if style in ("|", ">"):
            following = self.lines[line + 1] if line + 1 < len(self.lines) else ""
            return Place(self.located.file, line + 2, len(following) - len(following.lstrip()) + 1)
        quoted = isinstance(node, yaml.ScalarNode) and style in ('"', "'")
        return Place(self.located.file, line + 1, column + 1 + quoted)
