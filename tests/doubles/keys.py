"""Keys and tokens as steering makes them."""

import time

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wire.token import Algorithm, Claims, SigningKey, folder_container, mint


def new_key(kid: str, algorithm: Algorithm = Algorithm.EDDSA) -> SigningKey:
    if algorithm is Algorithm.EDDSA:
        return SigningKey(kid, algorithm, Ed25519PrivateKey.generate())
    return SigningKey(kid, algorithm, ec.generate_private_key(ec.SECP256R1()))


def token_for(folder: str, key: SigningKey, *, lives: float = 3600, **claims: object) -> str:
    """A token for all below `folder`, good from now on for `lives` seconds."""
    said = {"cdniuc": folder_container(folder), "iss": "steering", "exp": time.time() + lives, **claims}
    return mint(Claims(**said), key)
