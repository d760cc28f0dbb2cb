"""A ciphertext that opens under two AES-GCM-SIV keys at once, which a key commitment must refuse.

The tag is chosen first. It fixes the keystream under either key, and decrypting it under either key gives the POLYVAL
output that the plaintext must have. POLYVAL is linear in the plaintext's blocks, so two free ciphertext blocks solve the
two equations (Albertini et al., "How to Abuse and Fix Authenticated Encryption Without Key Commitment", 2020).
"""

from tests.contract.vectors.gcm_siv import (
    BLOCK,
    aes_decrypt,
    derive_keys,
    dot,
    element,
    keystream,
    lengths,
    padded,
    polyval,
    times,
    xor,
)

_FREE = 2


def two_key_ciphertext(keys: tuple[bytes, bytes], nonce: bytes, aads: tuple[bytes, bytes]) -> bytes:
    """Two ciphertext blocks and a tag that open under `keys[0]` with `aads[0]` and under `keys[1]` with `aads[1]`."""
    derived = [derive_keys(key, nonce) for key in keys]
    size = _FREE * BLOCK
    for trial in range(10_000):
        tag = trial.to_bytes(BLOCK, "big")
        digests = [_wanted_digest(encryption_key, tag, nonce) for _, encryption_key in derived]
        if any(digest is None for digest in digests):
            continue
        equations = [
            _equation(authentication_key, keystream(encryption_key, tag, size), aad, digest)
            for (authentication_key, encryption_key), aad, digest in zip(derived, aads, digests, strict=True)
            if digest is not None
        ]
        blocks = _solve(equations)
        return b"".join(block.to_bytes(BLOCK, "little") for block in blocks) + tag
    raise RuntimeError("no tag fits; one in four should")


def _wanted_digest(encryption_key: bytes, tag: bytes, nonce: bytes) -> bytes | None:
    """What POLYVAL must give for this tag; None when nothing can, since the top bit is cleared before encrypting."""
    masked = aes_decrypt(encryption_key, tag)
    return None if masked[15] & 0x80 else xor(masked, nonce + bytes(4))


def _equation(authentication_key: bytes, stream: bytes, aad: bytes, digest: bytes) -> tuple[int, int, int]:
    """(a, b, c) with a * C1 + b * C2 = c for the two ciphertext blocks."""
    plaintext_size = bytes(_FREE * BLOCK)
    fixed = polyval(authentication_key, padded(aad) + stream + lengths(aad, plaintext_size))
    h = element(authentication_key)
    # Only the block of lengths follows the last plaintext block, so that one is multiplied twice, the first thrice.
    twice = dot(dot(1, h), h)
    return dot(twice, h), twice, element(digest) ^ element(fixed)


def _solve(equations: list[tuple[int, int, int]]) -> tuple[int, int]:
    """Cramer's rule over the field, where minus is plus."""
    (a, b, e), (c, d, f) = equations
    inverse = _inverse(times(a, d) ^ times(b, c))
    return times(times(e, d) ^ times(b, f), inverse), times(times(a, f) ^ times(e, c), inverse)


def _inverse(a: int) -> int:
    """a^(2^128 - 2), which is 1/a."""
    result, power = 1, a
    for _ in range(127):
        power = times(power, power)
        result = times(result, power)
    return result
