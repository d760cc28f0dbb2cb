-- A person has one open request of their own for each kind.
CREATE UNIQUE INDEX rights_requests_own_open ON rights_requests (opener_id, kind)
    WHERE opener_role = 'customer' AND ended_at IS NULL;
