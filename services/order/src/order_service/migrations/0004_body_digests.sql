-- A retry under the same Idempotency-Key must say the same: the id of the record's key, and under a key that derives from it
-- an HMAC of what was asked for. It goes with the record's row, and says nothing without the record's key.
ALTER TABLE order_records ADD COLUMN body_digest bytea CHECK (octet_length(body_digest) = 48);
