"""Messages and card answers in chat tools."""

from __future__ import annotations

from pydantic import Field

from schemas.fields import Data, Person


class Message(Data):
    """A message that a person posted. Subject: `message/<instance>/<id>`."""

    by: Person | None = None
    text: str = Field(description="the message, as plain text")
    channel: str | None = Field(default=None, description="the channel or group it was posted in")


class CardAnswer(Data):
    """A button that a person pressed on a card of ours. Subject: `card/<instance>/<id>`."""

    by: Person
    answer: str = Field(description="the button's name")
