"""Who holds keys on lease, and up to where in the list of revocations each is done (PROTOCOLS §2)."""
