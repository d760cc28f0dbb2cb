"""Evidence: a Merkle log of decisions, looks, disclosures and destructions, and the certificates that rest on it (law L6)."""
