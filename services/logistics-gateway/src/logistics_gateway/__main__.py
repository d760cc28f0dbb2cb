"""`python -m logistics_gateway api|consume|relay|jobs|all|migrate`."""

from logistics_gateway.app import SERVICE
from servicekit import main

main(SERVICE)
