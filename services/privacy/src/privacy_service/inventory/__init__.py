"""The inventory: who holds what about whom, learned from the headers of events."""
