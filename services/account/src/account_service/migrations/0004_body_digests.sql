-- A retry under the same Idempotency-Key must say the same: the id of the entry's key, and under a key that derives from it an
-- HMAC of what was asked for. It goes with the row, and says nothing without the entry's key.
ALTER TABLE addresses ADD COLUMN body_digest bytea CHECK (octet_length(body_digest) = 48);
ALTER TABLE favourites ADD COLUMN body_digest bytea CHECK (octet_length(body_digest) = 48);
