"""What is said and answered in chat tools."""

from __future__ import annotations

from schemas.data import Data, Person


class Message(Data):
    """A message that a person posted. Subject: `message/<instance>/<id>`."""

    by: Person | None = None
    text: str
    channel: str | None = None


class CardAnswer(Data):
    """A button that a person pressed on a card of ours. Subject: `card/<instance>/<id>`."""

    by: Person
    answer: str
