"""KEK epochs: opened, closed, emptied, destroyed (docs/vault.md#kek-epochs)."""

from privacy_service.vault.epochs.handlers import horizon as horizon
from privacy_service.vault.epochs.handlers import make_provider as make_provider
from privacy_service.vault.epochs.handlers import prepare as prepare
from privacy_service.vault.epochs.handlers import refresh as refresh
from privacy_service.vault.epochs.handlers import turn as turn
