"""`python -m privacy_service.vault api|jobs|all|migrate`."""

import sys

from privacy_service.vault.app import main

sys.exit(main(sys.argv[1:]))
