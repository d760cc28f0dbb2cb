"""Probes: every participant says itself how much it holds about a person, and whoever is silent is named."""
