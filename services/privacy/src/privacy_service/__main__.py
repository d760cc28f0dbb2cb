"""`python -m privacy_service api|consume|relay|jobs|all|migrate|quarantine`."""

import sys

from privacy_service.app import SERVICE, service_under
from servicekit import Settings, main
from servicekit.core.policy import Policy, PolicyError

files = Settings().policy_files
try:
    # Without a policy only `migrate` and the usage line work; `main` refuses the rest.
    service = service_under(Policy.load(files)) if files else SERVICE
except PolicyError as error:
    sys.exit(str(error))
main(service)
