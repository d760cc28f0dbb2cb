"""Carriers' lanes: which fields of a delivery leave to whom, for which destinations and services."""
