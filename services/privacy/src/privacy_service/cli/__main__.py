"""`python -m privacy_service.cli`."""

from privacy_service.cli.commands import main

main()
