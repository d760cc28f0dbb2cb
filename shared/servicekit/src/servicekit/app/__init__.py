"""A service as a process: roles, jobs, probes."""
