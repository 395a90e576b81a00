"""Bearer tokens: how they are made, and what of them is kept.

Only a token's SHA-256 is ever written down. That is enough, without salt or slow hashing: a token has 256
random bits, so nobody finds it by trying.
"""

import hashlib
import secrets
from typing import Final

_TOKEN_BYTES: Final = 32


def new_token() -> str:
    """Return a new random token of letters, digits, "-" and "_"."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token's UTF-8 bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
