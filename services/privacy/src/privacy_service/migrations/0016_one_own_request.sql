-- A person has one open request of their own for each kind. Those that were opened before this rule stay as they are.
ALTER TABLE rights_requests ADD COLUMN is_sole boolean NOT NULL DEFAULT false;
CREATE UNIQUE INDEX rights_requests_own_open ON rights_requests (opener_id, kind) WHERE is_sole AND ended_at IS NULL;
