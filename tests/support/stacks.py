"""What tests and the demo need of a running stack."""

from deploy.local.stack import Stack
from tests.support.carrier import Account

# Cheap on purpose: hundreds of people register within seconds, and nobody's password is real.
FAST_PASSWORDS = {"ARGON2_MEMORY_KIB": "1024", "ARGON2_TIME_COST": "1", "ARGON2_LANES": "1", "ARGON2_THREADS": "2"}


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
