"""`seal_vs_aws_esdk`: a delivery of an order sealed by our kit, and encrypted by the AWS Encryption SDK, in this process.

Both have their keys ready. Ours is derived once for each key. The SDK's fastest way is its caching materials manager, which
asks its raw key once a minute and not for each message, with a suite that commits to the key (as our tokens do) and does not
sign; its raw keyring, which its documents recommend, is measured beside it.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import AesWrappingAlg, CreateRawAesKeyringInput
from aws_encryption_sdk.identifiers import Algorithm, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKey

from event_contracts.order import Delivery
from servicekit.vault.token import SealingKey, open_token, seal
from tests.bench.figures import Figure
from tests.support.deliveries import make_delivery

VALUES = 600
OPENED = 60  # of them, each round
SUITE = Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
KEY = secrets.token_bytes(32)
Encrypt = Callable[[bytes, UUID], bytes]
Decrypt = Callable[[bytes, UUID], bytes]


async def run(rounds: int) -> AsyncIterator[Figure]:
    """The ways take turns at who is first; the first round warms up and does not count."""
    deliveries = [make_delivery(country="DE", name=f"Benchmark Canary {place}") for place in range(VALUES)]
    subjects = [uuid4() for _ in deliveries]
    ways = {"ours": ours(), "cached": theirs(materials_manager=cached()), "keyring": theirs(keyring=keyring())}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    sizes: dict[str, int] = {}
    for turn in range(rounds + 1):
        for name in sorted(ways, reverse=bool(turn % 2)):
            speed, sizes[name] = _measure(*ways[name], deliveries, subjects)
            if turn:
                speeds[name].append(speed)
    fast = {name: statistics.median(found) for name, found in speeds.items()}
    kept = "keys ready on both sides; the SDK: caching materials manager, raw key, committing suite, no signature"
    yield Figure("seal_vs_aws_esdk", fast["ours"] / fast["cached"], "ratio", kept)
    yield Figure("seal_vs_aws_esdk_keyring", fast["ours"] / fast["keyring"], "ratio", "the SDK: raw AES keyring")
    yield Figure(
        "seals_per_s", fast["ours"], "values/s", f"{VALUES} deliveries, {sizes['ours']} bytes each when sealed"
    )
    yield Figure("aws_esdk_per_s", fast["cached"], "values/s", f"{sizes['cached']} bytes each when encrypted")


def ours() -> tuple[Encrypt, Decrypt]:
    key = SealingKey.derive(uuid4(), KEY)
    names: Any = {"data_class": "delivery", "model_name": "Delivery", "anchor": uuid4()}
    return (
        lambda plain, subject: seal(key, plain, subject=subject, **names),
        lambda token, subject: open_token(token, key, subject=subject, **names),
    )


def theirs(**materials: Any) -> tuple[Encrypt, Decrypt]:
    """Bound to the class only. A context for each subject, as our tokens have it, would leave nothing to cache."""
    client: Any = aws_encryption_sdk.EncryptionSDKClient(
        commitment_policy=aws_encryption_sdk.CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
    )

    def encrypt(plain: bytes, subject: UUID) -> bytes:
        message: bytes = client.encrypt(
            source=plain, encryption_context={"data_class": "delivery"}, algorithm=SUITE, **materials
        )[0]
        return message

    def decrypt(message: bytes, subject: UUID) -> bytes:
        plain: bytes = client.decrypt(source=message, **materials)[0]
        return plain

    return encrypt, decrypt


def cached() -> Any:
    wrapping = WrappingKey(WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING, KEY, EncryptionKeyType.SYMMETRIC)
    return aws_encryption_sdk.CachingCryptoMaterialsManager(
        master_key_provider=RawMasterKey(provider_id="shop", key_id=b"bench", wrapping_key=wrapping),
        cache=aws_encryption_sdk.LocalCryptoMaterialsCache(1_000),
        max_age=60.0,
    )


def keyring() -> Any:
    providers = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
    wanted = CreateRawAesKeyringInput(
        key_namespace="shop", key_name="bench", wrapping_key=KEY, wrapping_alg=AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16
    )
    return providers.create_raw_aes_keyring(input=wanted)


def _measure(encrypt: Encrypt, decrypt: Decrypt, deliveries: list[Delivery], subjects: list[UUID]) -> tuple[float, int]:
    """Values a second, from the model to the bytes that are stored, and the bytes of one. Some are opened again."""
    started = time.monotonic()
    sealed = [
        encrypt(delivery.model_dump_json(exclude_none=True).encode(), subject)
        for delivery, subject in zip(deliveries, subjects, strict=True)
    ]
    took = time.monotonic() - started
    assert not any(b"Canary" in token for token in sealed), "a name in clear"
    for token, delivery, subject in list(zip(sealed, deliveries, subjects, strict=True))[:OPENED]:
        assert Delivery.model_validate_json(decrypt(token, subject)) == delivery, "a value opens as another one"
    return len(sealed) / took, len(sealed[0])
