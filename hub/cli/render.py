"""Makes outside text safe for a terminal, by escaping control, invisible and bidirectional characters; and renders times.

A deal's name, an id, an account or another system's answer may hold escape sequences, line breaks and right-to-left overrides.
None of them may take effect on an operator's terminal.
"""

from __future__ import annotations

import codecs
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hub.errors import RejectedError

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


_clock: list[ZoneInfo] = []


def use_clock_of(zone: str) -> None:
    """Show times in this zone from now on: the home's, as on its pages and for due dates."""
    _clock[:] = [ZoneInfo(zone)]


def shown(time: str, form: str) -> str:
    """A time in the home's zone, else in this machine's."""
    from schemas.envelope import parse_time

    return parse_time(time).astimezone(_clock[0] if _clock else None).strftime(form)


def time_of(text: str) -> str:
    """Parse a time that people write: `2h` or `1d` ago, or written out. Raises RejectedError for anything else."""
    from schemas.envelope import format_time, parse_time

    ago = _AGO.fullmatch(text)
    if ago is not None:
        return format_time(datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])}))
    try:
        time = datetime.fromisoformat(text)
        return format_time(time.astimezone() if time.tzinfo is None else parse_time(text))
    except ValueError as error:
        raise RejectedError("HUB-E6209", time=text) from error


MAX_LINE_CHARS = 1_000
"""The longest line for people; `--json` has all of it."""
MAX_FACT_CHARS = 200
_CONTROL_CHARS = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""C0, DEL and C1; line and paragraph separators; bidi controls; zero-width characters; half a surrogate pair."""
_NAMED_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
SUBSTITUTES = {
    "✔": "+", "✘": "x", "●": "*", "○": "o", "◐": "*", "◀": "<", "→": "->", "←": "<-", "…": "...", "·": "-", "—": "-", "–": "-",
    "│": "|", "├": "|", "└": "`", "─": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "≥": ">=", "≤": "<=", "×": "x",
}  # fmt: skip
"""Substitutes for our own marks where the terminal's encoding lacks them."""


def marked(text: str) -> str:
    """The text on one line, with an escape such as `\\x1b` for each character that would act instead of being displayed."""
    return _CONTROL_CHARS.sub(_mark, text)


def cut(text: str, most: int = MAX_LINE_CHARS) -> str:
    """The text, cut to at most this many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _mark(match: re.Match[str]) -> str:
    letter = match[0]
    return _NAMED_ESCAPES.get(letter) or _escape(ord(letter))


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def marked_json(text: str) -> str:
    """JSON of the same value with those characters escaped; C0 is escaped already, as JSON demands."""
    return _CONTROL_CHARS.sub(lambda match: _json_escape(ord(match[0])), text)


def ascii_json(text: str) -> str:
    """JSON of the same value for an encoding that lacks some of its characters."""
    return "".join(letter if letter.isascii() else _json_escape(ord(letter)) for letter in text)


def _json_escape(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """The substitute for characters that an encoding lacks: from `SUBSTITUTES` for our marks, `?` for the rest."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(SUBSTITUTES.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


ERRORS = "baton.substitute"
"""The name of this codec error handler, for `reconfigure(errors=…)`."""
codecs.register_error(ERRORS, _substitute)
