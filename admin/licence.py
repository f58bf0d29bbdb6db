"""Where a title may be shown, as an operator says it: lists of countries."""

import re
from typing import Final

from admin.errors import UsageError
from wire.catalog import Availability

_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_MOST: Final = 300


def availability_of(only_in: str | None, not_in: str | None) -> Availability:
    """What "PT,ES" and "RU" say. Raises UsageError naming what is no ISO 3166-1 alpha-2 code.

    None of `only_in`: everywhere but `not_in`.
    """
    only = None if only_in is None else _countries(only_in)
    never = () if not_in is None else _countries(not_in)
    if both := sorted({*(only or ())} & set(never)):
        raise UsageError(f"{', '.join(both)} can't be both where it may be shown and where it may not")
    return Availability(only=only, never=never)


def in_words(availability: Availability) -> str:
    """For a person."""
    where = "everywhere" if availability.only is None else "only in " + ", ".join(availability.only)
    return where + (f", not in {', '.join(availability.never)}" if availability.never else "")


def _countries(text: str) -> tuple[str, ...]:
    named = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",")))
    wrong = [country for country in named if not _COUNTRY.fullmatch(country)]
    if wrong or len(named) > _MOST:
        raise UsageError(f"{wrong[0] if wrong else text!r} is no country; allowed: ISO 3166-1 codes such as PT,ES")
    return named
