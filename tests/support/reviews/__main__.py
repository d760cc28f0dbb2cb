"""`python -m reviews all|migrate`."""

from reviews.app import SERVICE
from servicekit import main

main(SERVICE)
