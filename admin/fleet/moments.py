"""Moments and spans as people type them. Pure."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from admin.errors import UsageError
from wire.toml import Seconds, quantity

MOMENT_RULE: Final = (
    '"2026-12-24 02:00", "02:00" (the next time that it is), or "now"; with an offset such as +01:00, or local'
)


def moment(text: str, now: datetime) -> datetime:
    """With the zone of `now` where the text names none. Raises UsageError."""
    words = text.strip()
    if words == "now":
        return now
    try:
        if len(words) <= len("02:00") and ":" in words:
            hour, minute = map(int, words.split(":"))
            at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return at if at > now else at + timedelta(days=1)
        said = datetime.fromisoformat(words)
    except ValueError as error:
        raise UsageError(f"{text!r} is no moment; allowed: {MOMENT_RULE}") from error
    return said.replace(tzinfo=now.tzinfo) if said.tzinfo is None else said


def span(text: str) -> timedelta:
    """Raises UsageError."""
    try:
        return timedelta(seconds=float(msgspec.convert(text, Seconds, dec_hook=quantity)))
    except msgspec.ValidationError as error:
        raise UsageError(f'{text!r} is no duration; allowed: such as "90 min" or "2 h"') from error
