"""Rights, inventory and the vault."""
