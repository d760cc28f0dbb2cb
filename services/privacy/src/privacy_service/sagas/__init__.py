"""Sagas: the steps of each kind of request, and what carries them out."""
