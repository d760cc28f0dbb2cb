"""One running system for all acceptance tests that leave it as they found it; the third party takes part."""

from collections.abc import Iterator

import pytest

from deploy.local.stack import Stack
from tests.support.infra import new_kafka, new_postgres
from tests.support.reviews_spec import REVIEWS
from tests.support.stacks import FAST_PASSWORDS, shorten_leases


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("acceptance")
    system = Stack(extra=[REVIEWS], kafka=new_kafka(folder / "kafka"), postgres=new_postgres(), progress=lambda _: None)
    system.overrides["account"] |= FAST_PASSWORDS
    shorten_leases(system, folder, seconds=30)
    with system:
        yield system
