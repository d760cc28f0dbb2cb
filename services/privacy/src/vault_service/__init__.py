"""The vault: the only keeper of keys. A service of its own, with its own process, database and roles."""
