"""Where the subjects of requests stand."""
