"""Probes: every participant says how much it holds about a person, and silent ones are named."""
