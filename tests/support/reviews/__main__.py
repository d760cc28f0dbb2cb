"""`python -m reviews all|migrate`."""

from reviews.app import SERVICE
from servicekit.service import main

main(SERVICE)
