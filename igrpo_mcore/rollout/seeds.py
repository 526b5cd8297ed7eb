"""Seeds that depend on what is sampled, and on nothing of how it is spread over engines or time."""

import hashlib

_BITS = 48


def derive_seed(*parts: int | str) -> int:
    """A 48-bit seed that depends on every part (leaves room for the engine's + sample index)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=_BITS // 8).digest()
    return int.from_bytes(digest, "big")


def drawn(share: float, *parts: int | str) -> bool:
    """True for about ``share`` of all ``parts``."""
    return derive_seed(*parts) < share * 2**_BITS
