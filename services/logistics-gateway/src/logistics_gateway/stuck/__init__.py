"""Shipments that wait: blocked ones, and those whose carrier is silent. All are seen, and all end."""
