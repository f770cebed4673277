"""The master key: what must be usable again is derived from it, or encrypted with it."""

import base64
import secrets
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class NotDecryptable(Exception):
    """The text was encrypted with a master key that is neither the present one nor the one in the database."""


class MasterKey:
    """`current` derives and encrypts; `former` keys only decrypt (made at first start, then replaced by a setting)."""

    def __init__(self, current: str, *, former: Sequence[str] = ()) -> None:
        self._current = current.encode()
        self._fernet = MultiFernet([_fernet(key.encode()) for key in (current, *former)])

    def derive(self, purpose: str) -> bytes:
        """32 bytes that only this purpose and this master key give (HKDF-SHA256, RFC 5869)."""
        return _hkdf(self._current, purpose)

    def encrypt(self, text: str | bytes) -> bytes:
        return self._fernet.encrypt(text.encode() if isinstance(text, str) else text)

    def decrypt(self, token: bytes) -> bytes:
        try:
            return self._fernet.decrypt(token)
        except InvalidToken:
            raise NotDecryptable("encrypted with another KEYSERVER_SECRET_KEY") from None


def new_master_key() -> str:
    return secrets.token_urlsafe(32)


def _hkdf(key: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"keyserver {purpose}".encode()).derive(key)


def _fernet(key: bytes) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(_hkdf(key, "encryption at rest")))
