"""For all tests: the plugin that reports on faults."""

pytest_plugins = ["tests.faults.plugin"]
