"""What text from outside looks like on a terminal: characters that steer one, hide, or turn the reading around are shown as marks.

A deal's name, an id, an account or another system's answer may hold escape sequences, line breaks and right-to-left overrides.
None of them may act where an operator reads.

Times as people say them.
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
    """Show times by this zone from now on: the home's, as its pages and due dates have it."""
    _clock[:] = [ZoneInfo(zone)]


def shown(time: str, form: str) -> str:
    """A moment as the home's clock has it, else this machine's."""
    from schemas.envelope import parse_time

    return parse_time(time).astimezone(_clock[0] if _clock else None).strftime(form)


def time_of(text: str) -> str:
    """A time as people say it, `2h` or `1d` ago or written out. Raises RejectedError for what is none."""
    from schemas.envelope import format_time, parse_time

    ago = _AGO.fullmatch(text)
    if ago is not None:
        return format_time(datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])}))
    try:
        named = datetime.fromisoformat(text)
        return format_time(named.astimezone() if named.tzinfo is None else parse_time(text))
    except ValueError as error:
        raise RejectedError("HUB-E6209", time=text) from error


MOST_OF_A_LINE = 1_000
"""Characters of a line for people; machines get all of it."""
MOST_OF_A_FACT = 200
_ACTS = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""C0, DEL and C1; line and paragraph separators; bidi controls; what has no width; half a surrogate pair."""
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
STAND_INS = {
    "✔": "+", "✘": "x", "●": "*", "○": "o", "◐": "*", "◀": "<", "→": "->", "←": "<-", "…": "...", "·": "-", "—": "-", "–": "-",
    "│": "|", "├": "|", "└": "`", "─": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "≥": ">=", "≤": "<=", "×": "x",
}  # fmt: skip
"""For our own marks where the terminal's encoding lacks them."""


def marked(text: str) -> str:
    """The text on one line, with `\\x1b` where a character would act instead of being seen."""
    return _ACTS.sub(_mark, text)


def cut(text: str, most: int = MOST_OF_A_LINE) -> str:
    """No more than so many characters of it."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _mark(found: re.Match[str]) -> str:
    letter = found[0]
    return _NAMED.get(letter) or _escape(ord(letter))


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def marked_json(text: str) -> str:
    """JSON of the same value, in which those characters are escaped; C0 is already, as JSON demands."""
    return _ACTS.sub(lambda found: _json_escape(ord(found[0])), text)


def ascii_json(text: str) -> str:
    """JSON of the same value for an encoding that lacks some of its characters."""
    return "".join(letter if letter.isascii() else _json_escape(ord(letter)) for letter in text)


def _json_escape(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """What is printed for characters that an encoding lacks: a stand-in for our marks, `?` for the rest."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(STAND_INS.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


ERRORS = "baton.stand_in"
"""The name of that manner, for `reconfigure(errors=…)`."""
codecs.register_error(ERRORS, _stand_in)
