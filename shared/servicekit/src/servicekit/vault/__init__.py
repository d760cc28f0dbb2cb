"""The vault as a service sees it: client, leases, tokens."""
