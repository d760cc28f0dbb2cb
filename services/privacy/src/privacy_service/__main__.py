"""`python -m privacy_service api|consume|relay|jobs|all|migrate|quarantine`."""

import sys

from privacy_service.app import SERVICE, service_under
from servicekit.policy import Policy, PolicyError
from servicekit.service import main
from servicekit.settings import Settings

files = Settings().policy_files
try:
    # Without a policy only `migrate` and the usage line work; `main` refuses the rest.
    service = service_under(Policy.load(files)) if files else SERVICE
except PolicyError as error:
    sys.exit(str(error))
main(service)
