"""The numbered list of revocations: fences, holds and destructions, in the database, its file and its topic.

See docs/protocols.md#the-list-of-revocations.
"""
