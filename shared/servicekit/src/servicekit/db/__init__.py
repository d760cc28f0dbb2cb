"""Postgres: connections, migrations, outbox, inbox, waiting for old writers."""
