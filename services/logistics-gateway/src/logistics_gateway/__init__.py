"""The logistics gateway, the only way out: it projects a delivery onto its lane, records the disclosure, sends it."""
