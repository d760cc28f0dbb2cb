"""KEK epochs: opened, closed, emptied, destroyed (docs/vault.md#kek-epochs)."""

from vault_service.epochs.handlers import horizon as horizon
from vault_service.epochs.handlers import make_provider as make_provider
from vault_service.epochs.handlers import prepare as prepare
from vault_service.epochs.handlers import refresh as refresh
from vault_service.epochs.handlers import turn as turn
