"""The numbered list of revocations: fences, holds and destructions, in the database, its file and its topic (PROTOCOLS §2)."""
