-- Living keys in the order of their age, of which a retention run reads those that came of age since the one before.
CREATE INDEX keys_by_age ON keys (created_at, key_id) WHERE state = 'active';
