"""The filter `to_toml`: settings, as variables give them, as the file that our programs read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"to_toml": to_toml, "merged": merged}


def merged(base: Mapping[str, Any], *more: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings over settings: tables are joined key by key, all else is replaced. None takes a key away."""
    result = dict(base)
    for over in more:
        for key, value in (over or {}).items():
            if value is None:
                result.pop(key, None)
            elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
                result[key] = merged(result[key], value)
            else:
                result[key] = value
    return result


def to_toml(settings: Mapping[str, Any]) -> str:
    """TOML of a mapping: plain values first, then tables, lists of mappings as arrays of tables. Keys without a value
    (None) are left out.
    """
    lines: list[str] = []
    _table(settings, (), lines)
    return "\n".join(lines).strip() + "\n"


def _table(table: Mapping[str, Any], where: tuple[str, ...], lines: list[str]) -> None:
    plain = {key: value for key, value in table.items() if value is not None and not _is_nested(value)}
    lines += [f"{_key(key)} = {_value(value, (*where, str(key)))}" for key, value in plain.items()]
    for key, value in table.items():
        name = ".".join(_key(part) for part in (*where, str(key)))
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]"]
            _table(value, (*where, str(key)), lines)
        elif _is_nested(value):
            for entry in value:
                lines += ["", f"[[{name}]]"]
                _table(entry, (*where, str(key)), lines)


def _is_nested(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _value(value: Any, where: tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped as well.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(entry, where) for entry in value) + "]"
    raise AnsibleFilterError(
        f"to_toml: {'.'.join(where)} is {type(value).__name__}; allowed: text, numbers, true, false, lists and tables"
    )


def _key(key: Any) -> str:
    text = str(key)
    return text if _BARE.match(text) else json.dumps(text, ensure_ascii=False)
