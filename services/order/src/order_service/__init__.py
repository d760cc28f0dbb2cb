"""Orders: placing, reading, cancelling, and how their shipments go."""
