"""What tests and the demo need of a running stack."""

from pathlib import Path

from deploy.local.stack import Stack
from tests.support.carrier import Account

# Cheap on purpose: hundreds of people register within seconds, and nobody's password is real.
FAST_PASSWORDS = {"ARGON2_MEMORY_KIB": "1024", "ARGON2_TIME_COST": "1", "ARGON2_LANES": "1", "ARGON2_THREADS": "2"}


def shorten_leases(stack: Stack, folder: Path, seconds: int = 10) -> None:
    """Before the start: a holder that was killed is waited for until its leases are over, and not for a minute."""
    base, *rest = stack.policy_files
    text, usual = base.read_text("utf-8"), "lease_seconds: 60"
    assert usual in text
    shortened = folder / base.name
    shortened.write_text(text.replace(usual, f"lease_seconds: {seconds}"), "utf-8")
    stack.policy_files = [shortened, *rest]


def account_of(stack: Stack, carrier: str) -> Account:
    """What a carrier needs to take part."""
    user, password = stack.kafka_credentials(carrier)
    return Account(
        carrier,
        stack.kafka.bootstrap,
        user,
        password,
        stack.carrier_key_file(carrier).read_text(),
        (stack.keys / "reply.pub.json").read_text(),
    )
