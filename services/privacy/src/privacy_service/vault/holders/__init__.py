"""Who holds keys on lease, and up to where in the list of revocations each is done (docs/protocols.md#the-list-of-revocations)."""
