"""Kafka: client, CloudEvents, readers, positions, quarantine."""
