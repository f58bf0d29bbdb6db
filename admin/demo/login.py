"""The operator's log-in service, as small as a demo wants it: one key, and tokens for viewers."""

import json
import secrets
import time
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm

ISSUER: Final = "https://login.demo.example"
AUDIENCE: Final = "oca-demo"
_KEY_ID: Final = "demo"
_LIFETIME: Final = 3600


class LogIn:
    """Lets everybody in."""

    def __init__(self, key_set: Path) -> None:
        """Writes the JWK set there."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        key_set.write_text(json.dumps({"keys": [public | {"kid": _KEY_ID, "alg": "ES256", "use": "sig"}]}))

    def token(self) -> str:
        """For a new viewer."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": secrets.token_hex(8),
            "exp": int(time.time()) + _LIFETIME,
        }
        return jwt.encode(claims, self._key, "ES256", headers={"kid": _KEY_ID})


def write_signing_key(path: Path) -> Ed25519PublicKey:
    """A key with which steering signs URLs, or the planner orders; how its signatures are checked."""
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key.public_key()
