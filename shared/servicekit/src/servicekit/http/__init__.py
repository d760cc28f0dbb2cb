"""The HTTP edge: listeners, admission, limits, tokens, problems, pages."""
