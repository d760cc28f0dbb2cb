"""TLS of our HTTP clients: reading the machine's certificates takes 40 ms, which is more than most calls."""

import ssl
from functools import cache


@cache
def tls_of(url: str) -> ssl.SSLContext:
    """For an `https` address what the machine trusts; else nothing is trusted, so no TLS would come about by mistake."""
    return ssl.create_default_context() if url.lower().startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
