"""Registrations whose e-mail address nobody has confirmed yet. They die after a day."""
