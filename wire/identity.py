"""Who an appliance is by its certificate, and where it keeps what proves it.

The name stands in the certificate as a URI among its subject alternative names (RFC 5280 section 4.2.1.6), and nowhere
else: a common name is for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from wire.heartbeat import ApplianceId

_URN: Final = "urn:oca:appliance:"

FOLDER: Final = "identity"
"""In an appliance's state directory; nobody else may enter it. What lies in it is replaced by renaming, so that it is
old or new and never half."""
IDENTITY_FILE: Final = "identity.pem"
"""Private key, certificate, and the certificates between it and the fleet's authority: one file, so that they always
belong together."""
AUTHORITY_FILE: Final = "authority.pem"
"""The fleet's authorities, old and new ones."""
REVOKED_FILE: Final = "revoked.json"
"""By appliance, a moment (seconds since 1970): certificates that begin before it are not believed."""


def name_of(appliance: str) -> str:
    """The URI that stands for it in a certificate."""
    return _URN + appliance


def appliance_of(certificate: Mapping[str, Any] | None) -> str | None:
    """Whose certificate it is, of what `SSLSocket.getpeercert()` said; None: no appliance's, or of several.

    The certificate must have been verified: without that, anybody can write anything into one.
    """
    names = (certificate or {}).get("subjectAltName", ())
    found = [value for kind, value in names if kind == "URI" and value.startswith(_URN)]
    if len(found) != 1:
        return None
    try:
        return msgspec.convert(found[0].removeprefix(_URN), ApplianceId)
    except msgspec.ValidationError:
        return None
