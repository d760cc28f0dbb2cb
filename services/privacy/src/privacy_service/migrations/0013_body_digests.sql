-- A retry of a rectification under the same Idempotency-Key must say the same: the id of the key under which the corrections
-- are sealed, and an HMAC of what was asked for under a key that derives from it. It says nothing once that key is gone.
ALTER TABLE rights_requests ADD COLUMN body_digest bytea CHECK (octet_length(body_digest) = 48);
