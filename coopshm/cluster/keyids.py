"""What a key is called in the cluster: the encoded key if it is short, else a digest of it."""

from __future__ import annotations

import hashlib
from typing import Final

from .relay import KEY_ID_BYTES_MAX, KeyId

__all__ = ["digest_id", "is_digest", "key_id_of"]

#: What a key id of a digest begins with: no encoded key does (keys.py).
_DIGEST: Final = b"\xff"


def key_id_of(key: bytes) -> KeyId:
    """What a key is called in the cluster."""
    if len(key) <= KEY_ID_BYTES_MAX:
        return key
    return digest_id(len(key), hashlib.blake2s(key, digest_size=24).digest())


def digest_id(key_bytes: int, digest: bytes) -> KeyId:
    return _DIGEST + key_bytes.to_bytes(4, "little") + digest


def is_digest(key_id: KeyId) -> bool:
    """Does it stand for a key that it does not contain?"""
    return key_id[:1] == _DIGEST
