"""What everything else of the kit stands on: errors, time, settings, logs, metrics, policy."""
