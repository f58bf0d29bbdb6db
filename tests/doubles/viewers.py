"""An operator's log-in service: keys of all kinds, its JWK set, and tokens for viewers."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://login.operator.example", "films"
_RSA = rsa.generate_private_key(65537, 2048)
"""One for the process: a new one takes longer than the tests that use it."""


@dataclass
class LoginService:
    """`algorithm` of its key; `kid` names it."""

    algorithm: str = "ES256"
    kid: str | None = "one"
    key: Any = field(default=None)

    def __post_init__(self) -> None:
        if self.key is None:
            self.key = {
                "RS256": lambda: _RSA,
                "PS256": lambda: _RSA,
                "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
                "EdDSA": Ed25519PrivateKey.generate,
            }[self.algorithm]()

    def jwk(self, **more: Any) -> dict[str, Any]:
        maker = {"RS256": RSAAlgorithm, "PS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
        said = maker[self.algorithm].to_jwk(self.key.public_key(), as_dict=True)
        named = {} if self.kid is None else {"kid": self.kid}
        return {**said, **named, **more}

    def key_set(self, *others: dict[str, Any]) -> bytes:
        return json.dumps({"keys": [*others, self.jwk()]}).encode()

    def token(self, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Good for an hour, for `AUDIENCE`. A claim of None is left out."""
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "exp": time.time() + 3600, **claims}
        named = {**({} if self.kid is None else {"kid": self.kid}), **(header or {})}
        payload = {name: value for name, value in said.items() if value is not None}
        return jwt.api_jws.encode(json.dumps(payload).encode(), self.key, algorithm=self.algorithm, headers=named)
