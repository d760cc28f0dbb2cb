"""`privacyctl`: the privacy service at the keyboard of staff."""
