"""Rights requests: what a person can ask for, and the sagas that carry it through every participant."""
