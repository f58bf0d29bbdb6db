"""Who a certificate is for."""

import pytest

from wire.identity import appliance_of, name_of


def test_an_appliance_is_known_by_the_uri_in_its_certificate():
    assert appliance_of({"subjectAltName": (("DNS", "lis-1.edge.example"), ("URI", name_of("lis-1")))}) == "lis-1"


@pytest.mark.parametrize(
    "certificate",
    [
        None,
        {},
        {"subject": ((("commonName", "lis-1"),),)},
        {"subjectAltName": (("DNS", "urn:oca:appliance:lis-1"),)},
        {"subjectAltName": (("URI", "urn:oca:steering:lis-1"),)},
        {"subjectAltName": (("URI", name_of("lis-1")), ("URI", name_of("lis-2")))},
        {"subjectAltName": (("URI", name_of("../lis-1")),)},
        {"subjectAltName": (("URI", name_of("")),)},
    ],
    ids=["none", "empty", "common name", "a host", "another kind", "two", "no id", "nobody"],
)
def test_whoever_is_not_named_exactly_once_is_nobody(certificate):
    assert appliance_of(certificate) is None
