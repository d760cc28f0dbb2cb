"""L11: whoever we ask must prove who they are, or nothing is said to them."""

import asyncio
import ssl

import httpx
import pytest

from servicekit.http.tls import tls_of


def test_a_server_must_be_known_and_is_asked_for_its_name() -> None:
    for url in ("https://vault.example", "http://127.0.0.1:1"):
        assert tls_of(url).verify_mode == ssl.CERT_REQUIRED
        assert tls_of(url).check_hostname
    assert tls_of("http://127.0.0.1:1").cert_store_stats() == {"x509": 0, "crl": 0, "x509_ca": 0}


async def test_a_server_without_tls_is_told_nothing_when_its_address_says_https() -> None:
    heard = bytearray()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65_536))
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, httpx.AsyncClient(verify=tls_of(url), trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.post(url, headers={"Authorization": "Bearer secret"})
    assert heard
    assert b"secret" not in heard
