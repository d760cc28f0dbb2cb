"""`python -m vault_service api|jobs|all|migrate`."""

import sys

from vault_service.app import main

sys.exit(main(sys.argv[1:]))
