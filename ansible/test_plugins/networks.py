"""The test `within`: whether an address lies in one of some networks."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Any

from ansible.errors import AnsibleFilterError


class TestModule:
    """What Ansible looks for."""

    __test__ = False

    def tests(self) -> dict[str, Any]:
        return {"within": within}


def within(address: str, networks: Iterable[str]) -> bool:
    """Raises `AnsibleFilterError`. A scope (%eth0) is not looked at."""
    try:
        found = ip_address(address.partition("%")[0])
        held = [ip_network(text) for text in networks]
    except ValueError as error:
        raise AnsibleFilterError(f"within: {error}") from error
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in network for network in held if network.version == found.version)
