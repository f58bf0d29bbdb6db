"""Which role somebody has by what the log-in provider says."""

import pytest

from admin.console.oidc import role_of
from admin.console.settings import Oidc


def oidc(roles_claim="groups"):
    return Oidc(
        issuer="https://id.example",
        client_id="console",
        roles_claim=roles_claim,
        roles={"viewer": ("isp",), "operator": ("noc",), "admin": ("leads",)},
    )


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": ["isp"]}, "viewer"),
        ({"groups": ["isp", "leads", "noc"]}, "admin"),
        ({"groups": "noc"}, "operator"),
        ({"groups": ["nocturnal"]}, None),
        ({"groups": [["noc"], 1, None]}, None),
        ({"groups": {"noc": True}}, None),
        ({"groups": 7}, None),
        ({}, None),
    ],
)
def test_the_highest_role_that_the_claim_gives_counts(claims, role):
    assert role_of(claims, oidc()) == role


def test_a_claim_within_a_claim_is_found():
    settings = oidc("resource_access.console.roles")
    assert role_of({"resource_access": {"console": {"roles": ["leads"]}}}, settings) == "admin"
    assert role_of({"resource_access": "leads"}, settings) is None
