"""base64url without padding (RFC 4648 §5): how bytes travel in JSON, tokens and links."""

import pybase64


def encode(raw: bytes) -> str:
    return pybase64.b64encode_as_string(raw, altchars=b"-_").rstrip("=")


def decode(text: str) -> bytes:
    """Raises ValueError for any other character."""
    return pybase64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
