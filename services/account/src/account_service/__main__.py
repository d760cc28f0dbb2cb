"""`python -m account_service api|consume|relay|jobs|all|migrate`."""

from account_service.app import SERVICE
from servicekit import main

main(SERVICE)
