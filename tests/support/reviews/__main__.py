"""`python -m reviews all|migrate`."""

from servicekit import main

from .app import SERVICE

main(SERVICE)
