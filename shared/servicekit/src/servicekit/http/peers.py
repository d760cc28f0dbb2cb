"""The peer of a request: the address by which a stranger is counted."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from starlette.types import Scope

from servicekit.core.settings import Settings

_NETWORK_OF_ONE = 64  # whoever has one address of IPv6 has all of its /64


def peer(scope: Scope) -> str:
    """Whom to count a request by that proves no identity: an IPv4 address, or a network of IPv6.

    Behind a trusted proxy (HTTP_TRUSTED_PROXIES) it is the address that the proxy names.
    """
    return peer_of(scope.get("client"))


def peer_of(client: Sequence[object] | None) -> str:
    """The same, of a connection's (address, port)."""
    return _peer(str(client[0])) if client else ""


def is_trusted(address: str, settings: Settings) -> bool:
    """Whether this is a proxy whose X-Forwarded-For is believed."""
    return bool(settings.http_trusted_proxies) and _is_trusted(address, settings.http_trusted_proxies)


@lru_cache(4096)
def _peer(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return text[:64]
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ip_network((address, _NETWORK_OF_ONE), strict=False))
    return text


@lru_cache(4096)
def _is_trusted(address: str, proxies: tuple[str, ...]) -> bool:
    try:
        return any(ip_address(address) in ip_network(each) for each in proxies)
    except ValueError:
        return False
