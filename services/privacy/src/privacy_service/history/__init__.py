"""The history of requests: who did what, and when."""
