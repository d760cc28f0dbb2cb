"""The codes of confirmations: derived under a key of this service, stored nowhere. Pure."""

import hmac
from datetime import date
from typing import Final
from uuid import UUID

from servicekit.core.errors import Misconfigured

KEY_BYTES: Final = 32
# Crockford's base 32: no letter that is taken for a digit.
_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LETTERS_OF_A_CODE: Final = 10
_AS_MEANT: Final = str.maketrans("OIL", "011")


class Codes:
    """Raises `Misconfigured` for a key that is too short."""

    def __init__(self, key: bytes) -> None:
        try:
            self._key = bytes.fromhex(key.decode("ascii"))
        except ValueError:
            self._key = b""
        if len(self._key) < KEY_BYTES:
            raise Misconfigured("MAIL_KEY_FILE does not hold 32 bytes in hex. Make it with: openssl rand -hex 32")

    def code(self, registration_id: UUID) -> str:
        """50 bits, as `XXXXX-XXXXX`."""
        number = int.from_bytes(self._digest("confirm/v1", registration_id.bytes), "big")
        letters = "".join(_LETTERS[number >> 5 * place & 31] for place in range(_LETTERS_OF_A_CODE))
        return f"{letters[:5]}-{letters[5:]}"

    def is_right(self, registration_id: UUID, code: str) -> bool:
        """However it is typed: case, blanks and dashes do not count."""
        typed = "".join(c for c in code.upper() if c.isalnum()).translate(_AS_MEANT)
        right = self.code(registration_id).replace("-", "")
        return hmac.compare_digest(typed.encode(), right.encode())

    def count_digest(self, email_digest: bytes, day: date, kind: str = "mails") -> bytes:
        """Under what the mails of a kind to an address are counted: another one each day, and no other table's."""
        return self._digest(f"{kind}/v1", day.isoformat().encode() + email_digest)

    def _digest(self, label: str, message: bytes) -> bytes:
        return hmac.digest(self._key, label.encode() + b"\0" + message, "sha256")
