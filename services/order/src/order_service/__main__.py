"""`python -m order_service api|consume|relay|jobs|all|migrate`."""

from order_service.app import SERVICE
from servicekit import main

main(SERVICE)
