"""KEKs in AWS KMS, by the envelope: one KMS key per epoch wraps one data key, and that data key is the epoch's KEK.

KMS is asked when an epoch is made, loaded or ended; each time the vault's process makes keys it is not. The wrapped data
key is the epoch's handle in the vault's database: with the KMS key gone it opens nothing. An epoch's end schedules its
KMS key's deletion; KMS waits for 7 to 30 days, in which an operator may cancel it.
(AWS KMS API Reference: CreateKey, GenerateDataKey, DescribeKey, Decrypt, ScheduleKeyDeletion.)
"""

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from servicekit.core.errors import Misconfigured, Unavailable
from vault_service.kek import KekMissing

SHORTEST_WINDOW: Final = 7
LONGEST_WINDOW: Final = 30
_CONFIG: Final = AioConfig(connect_timeout=5, read_timeout=10, retries={"max_attempts": 3, "mode": "standard"})
_GONE: Final = frozenset(("NotFoundException", "KMSInvalidStateException", "DisabledException"))
_REFUSED: Final = frozenset(
    ("AccessDeniedException", "UnrecognizedClientException", "InvalidCiphertextException", "IncorrectKeyException")
)


class _Handle(msgspec.Struct, frozen=True):
    """The KMS key's ARN, and the data key that it wraps, in base64."""

    key: str
    wrapped: str


class KmsKek:
    """`alias` begins the names of this vault's keys in KMS (`alias/<alias>-epoch-<n>-…`) and is bound to what they wrap.

    `deletion_delay` between the end of an epoch and the deletion of its KMS key: 7 to 30 days. Raises Misconfigured.
    """

    name = "aws-kms"
    waits = timedelta(0)

    def __init__(
        self, alias: str, deletion_delay: timedelta, region: str | None = None, endpoint: str | None = None
    ) -> None:
        if not SHORTEST_WINDOW <= deletion_delay.days <= LONGEST_WINDOW:
            raise Misconfigured(
                f"KEK_DELETION_DAYS must be {SHORTEST_WINDOW} to {LONGEST_WINDOW} with AWS KMS: it deletes no key sooner."
            )
        self.deletion_delay = deletion_delay
        self._alias, self._region, self._endpoint = alias, region, endpoint
        self._session = get_session()  # it reads AWS's descriptions of KMS once

    async def first(self) -> tuple[int, bytes]:
        return await self.create(0)

    async def create(self, after: int) -> tuple[int, bytes]:
        epoch = after + 1
        return epoch, await self._create(f"epoch-{epoch}", self._context(str(epoch)))

    async def load(self, epoch: int, handle: bytes) -> bytes:
        return await self._load(handle, self._context(str(epoch)))

    async def destroy(self, epoch: int, handle: bytes) -> None:
        key = _handle(handle).key.rpartition("/")[
            2
        ]  # KMS deletes keys of its caller's own account only: the id will do
        async with self._client() as kms:
            try:
                state = (await kms.describe_key(KeyId=key))["KeyMetadata"]["KeyState"]
                if state != "PendingDeletion":
                    await kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=self.deletion_delay.days)
            except ClientError as error:
                # Gone or scheduled already, by this vault before a crash or by another process.
                if _code(error) not in _GONE:
                    raise

    async def create_index(self) -> bytes:
        return await self._create("index", self._context("index"))

    async def load_index(self, handle: bytes) -> bytes:
        return await self._load(handle, self._context("index"))

    async def strays(self, known: Collection[tuple[int, bytes]]) -> list[str]:
        accounted = {_handle(handle).key.rpartition("/")[2] for _, handle in known if handle}
        found = []
        async with self._client() as kms:
            async for page in kms.get_paginator("list_aliases").paginate():
                for alias in page["Aliases"]:
                    is_ours = alias["AliasName"].startswith(f"alias/{self._alias}-epoch-")
                    if is_ours and alias.get("TargetKeyId") not in accounted:
                        found.append(str(alias["AliasName"]))
        return sorted(found)

    def _context(self, epoch: str) -> dict[str, str]:
        return {"vault": self._alias, "epoch": epoch}

    async def _create(self, what: str, context: dict[str, str]) -> bytes:
        tags = [{"TagKey": name, "TagValue": value} for name, value in context.items()]
        async with self._client() as kms:
            made = await kms.create_key(Description=f"KEK of the vault {self._alias}, {what}", Tags=tags)
            metadata = made["KeyMetadata"]
            # The id at the end keeps two that are made at once apart.
            await kms.create_alias(
                AliasName=f"alias/{self._alias}-{what}-{metadata['KeyId'][:8]}", TargetKeyId=metadata["KeyId"]
            )
            data_key = await kms.generate_data_key_without_plaintext(
                KeyId=metadata["Arn"], KeySpec="AES_256", EncryptionContext=context
            )
        return msgspec.json.encode(_Handle(metadata["Arn"], b64encode(data_key["CiphertextBlob"]).decode("ascii")))

    async def _load(self, handle: bytes, context: dict[str, str]) -> bytes:
        found = _handle(handle)
        async with self._client() as kms:
            state = (await kms.describe_key(KeyId=found.key))["KeyMetadata"]["KeyState"]
            if state != "Enabled":
                raise KekMissing(
                    f"A KMS key of this vault is in state {state}: cancel its deletion, or enable it, while KMS has it."
                )
            answer = await kms.decrypt(
                KeyId=found.key, CiphertextBlob=b64decode(found.wrapped), EncryptionContext=context
            )
        return bytes(answer["Plaintext"])

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        """A client for a few calls. Raises KekMissing, Misconfigured, Unavailable in place of AWS's errors."""
        # What KMS says is kept out of our messages but for its code: it can name accounts and people.
        try:
            async with self._session.create_client(
                "kms", region_name=self._region, endpoint_url=self._endpoint, config=_CONFIG
            ) as kms:
                yield kms
        except ClientError as error:
            code = _code(error)
            if code in _GONE:
                raise KekMissing(f"AWS KMS cannot use a key of this vault ({code}): restore it in KMS.") from None
            if code in _REFUSED:
                raise Misconfigured(f"AWS KMS refuses the vault ({code}): check its role, region and alias.") from None
            raise Unavailable(f"AWS KMS failed ({code}). Try again later.") from None
        except BotoCoreError as error:
            raise Unavailable(f"AWS KMS does not answer ({type(error).__name__}). Try again later.") from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _handle(handle: bytes) -> _Handle:
    try:
        return msgspec.json.decode(handle, type=_Handle)
    except msgspec.MsgspecError:
        raise Misconfigured(
            "An epoch of this database was not made by AWS KMS: check KEK_PROVIDER, and that it is the right database."
        ) from None
