"""AES-GCM-SIV (RFC 8452) and HKDF (RFC 5869) in plain Python, written from the RFCs, to make test vectors.

Clear rather than fast, and by no means constant in time. Only the standard library is imported, so that the vectors do not
share a mistake with the code that they test. A field element of POLYVAL is an int whose bit i is the coefficient of x^i.
"""

import hashlib
import hmac

BLOCK = 16
# x^128 + x^127 + x^126 + x^121 + 1, RFC 8452 section 3
_POLYNOMIAL = (1 << 128) | (1 << 127) | (1 << 126) | (1 << 121) | 1
# x^-128: dot(a, b) = a * b * x^-128
_X_MINUS_128 = (1 << 127) | (1 << 124) | (1 << 121) | (1 << 114) | 1


def hkdf_sha256(key: bytes, info: bytes, length: int = 32) -> bytes:
    """RFC 5869 with no salt."""
    extracted = hmac.new(bytes(32), key, hashlib.sha256).digest()
    output, block, counter = b"", b"", 1
    while len(output) < length:
        block = hmac.new(extracted, block + info + bytes([counter]), hashlib.sha256).digest()
        output, counter = output + block, counter + 1
    return output[:length]


# --- AES (FIPS 197) ---


def _byte_times(a: int, b: int) -> int:
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _make_sbox() -> list[int]:
    box = []
    for value in range(256):
        inverse = next((other for other in range(256) if _byte_times(value, other) == 1), 0)
        rotations = [((inverse << shift) | (inverse >> (8 - shift))) & 0xFF for shift in range(5)]
        box.append(rotations[0] ^ rotations[1] ^ rotations[2] ^ rotations[3] ^ rotations[4] ^ 0x63)
    return box


_SBOX = _make_sbox()
_INVERSE_SBOX = [_SBOX.index(value) for value in range(256)]


def _round_keys(key: bytes) -> list[bytes]:
    words = [key[i : i + 4] for i in range(0, len(key), 4)]
    count, rounds, constant = len(words), len(words) + 6, 1
    for i in range(count, 4 * (rounds + 1)):
        word = words[-1]
        if i % count == 0:
            word = bytes(_SBOX[b] for b in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = _byte_times(constant, 2)
        elif count > 6 and i % count == 4:
            word = bytes(_SBOX[b] for b in word)
        words.append(xor(words[i - count], word))
    return [b"".join(words[i : i + 4]) for i in range(0, len(words), 4)]


def _mix(state: bytes, factors: tuple[int, int, int, int]) -> bytes:
    columns = (state[i : i + 4] for i in range(0, BLOCK, 4))
    mixed = bytearray()
    for column in columns:
        for row in range(4):
            parts = [_byte_times(column[i], factors[(i - row) % 4]) for i in range(4)]
            mixed.append(parts[0] ^ parts[1] ^ parts[2] ^ parts[3])
    return bytes(mixed)


def aes_encrypt(key: bytes, block: bytes) -> bytes:
    """One block under a key of 16 or 32 bytes."""
    first, *middle, last = _round_keys(key)
    state = xor(block, first)
    for round_key in middle:
        state = xor(_mix(_shift_rows(bytes(_SBOX[b] for b in state)), (2, 3, 1, 1)), round_key)
    return xor(_shift_rows(bytes(_SBOX[b] for b in state)), last)


def aes_decrypt(key: bytes, block: bytes) -> bytes:
    """The inverse of `aes_encrypt`."""
    first, *middle, last = _round_keys(key)
    state = bytes(_INVERSE_SBOX[b] for b in _unshift_rows(xor(block, last)))
    for round_key in reversed(middle):
        state = bytes(_INVERSE_SBOX[b] for b in _unshift_rows(_mix(xor(state, round_key), (14, 11, 13, 9))))
    return xor(state, first)


def _shift_rows(state: bytes) -> bytes:
    return bytes(state[(i + 4 * (i % 4)) % BLOCK] for i in range(BLOCK))


def _unshift_rows(state: bytes) -> bytes:
    return bytes(state[(i - 4 * (i % 4)) % BLOCK] for i in range(BLOCK))


# --- POLYVAL (RFC 8452 section 3) ---


def times(a: int, b: int) -> int:
    """The product of two field elements."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a >> 128:
            a ^= _POLYNOMIAL
        b >>= 1
    return product


def dot(a: int, b: int) -> int:
    """a * b * x^-128."""
    return times(times(a, b), _X_MINUS_128)


def element(block: bytes) -> int:
    return int.from_bytes(block, "little")


def polyval(key: bytes, data: bytes) -> bytes:
    """POLYVAL of whole blocks."""
    accumulator = 0
    for i in range(0, len(data), BLOCK):
        accumulator = dot(accumulator ^ element(data[i : i + BLOCK]), element(key))
    return accumulator.to_bytes(BLOCK, "little")


# --- AES-GCM-SIV (RFC 8452 section 4) ---


def derive_keys(key: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    """(message authentication key, message encryption key) for one nonce."""
    halves = [aes_encrypt(key, i.to_bytes(4, "little") + nonce)[:8] for i in range(6 if len(key) == 32 else 4)]
    return b"".join(halves[:2]), b"".join(halves[2:])


def keystream(encryption_key: bytes, tag: bytes, length: int) -> bytes:
    """What the plaintext is masked with: AES in counter mode, beginning at the tag with its top bit set."""
    start = tag[:15] + bytes([tag[15] | 0x80])
    counter, output = int.from_bytes(start[:4], "little"), b""
    while len(output) < length:
        output += aes_encrypt(encryption_key, counter.to_bytes(4, "little") + start[4:])
        counter = (counter + 1) % 2**32
    return output[:length]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def lengths(aad: bytes, plaintext: bytes) -> bytes:
    """The block that ends POLYVAL's input."""
    return (8 * len(aad)).to_bytes(8, "little") + (8 * len(plaintext)).to_bytes(8, "little")


def make_tag(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    authentication_key, encryption_key = derive_keys(key, nonce)
    digest = polyval(authentication_key, padded(aad) + padded(plaintext) + lengths(aad, plaintext))
    masked = xor(digest, nonce + bytes(4))
    return aes_encrypt(encryption_key, masked[:15] + bytes([masked[15] & 0x7F]))


def encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Ciphertext and tag."""
    tag = make_tag(key, nonce, plaintext, aad)
    _, encryption_key = derive_keys(key, nonce)
    return xor(plaintext, keystream(encryption_key, tag, len(plaintext))) + tag


def decrypt(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    """The plaintext. Raises ValueError for a wrong tag."""
    ciphertext, tag = sealed[:-BLOCK], sealed[-BLOCK:]
    _, encryption_key = derive_keys(key, nonce)
    plaintext = xor(ciphertext, keystream(encryption_key, tag, len(ciphertext)))
    if make_tag(key, nonce, plaintext, aad) != tag:
        raise ValueError("wrong tag")
    return plaintext


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))
