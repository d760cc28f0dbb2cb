"""HTTP to the services of a stack, which are on this machine and have no TLS."""

from typing import Any

import httpx

from servicekit.http.tls import tls_of


def open_http(url: str = "", *, timeout: float = 60, **options: Any) -> httpx.AsyncClient:
    """A client for the service at `url`; no proxy of the environment is asked. `timeout` in seconds."""
    return httpx.AsyncClient(base_url=url, timeout=timeout, trust_env=False, verify=tls_of(url), **options)
