"""Cancellations of orders that the gateway does not know yet."""
