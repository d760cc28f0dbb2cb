"""Retention runs: what is past its time is found at all systems and given up, every day (clauses S6 and S7)."""
