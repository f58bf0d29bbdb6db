"""The filter `of_family`: networks of one family, for rules that want them apart."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

from ansible.errors import AnsibleFilterError


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"of_family": of_family}


def of_family(networks: Iterable[str], version: int) -> list[str]:
    """Those of IPv4 (4) or IPv6 (6)."""
    return [text for text in networks if _network(text).version == version]


def _network(text: str) -> Any:
    try:
        return ip_network(text)
    except ValueError as error:
        raise AnsibleFilterError(f'{error}; allowed: "192.0.2.0/24", "2001:db8::/32", "192.0.2.7"') from error
