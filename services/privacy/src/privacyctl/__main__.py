"""`python -m privacyctl`."""

from privacyctl.commands import main

main()
