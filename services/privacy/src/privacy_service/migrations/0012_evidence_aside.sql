-- Leaves that are no leaves of the log: they wait here, so that those behind them get their indices.
CREATE TABLE evidence_aside (
    entry_id    bigint      PRIMARY KEY REFERENCES evidence_leaves,
    reason      varchar(32) NOT NULL,
    since       timestamptz NOT NULL,
    attempts    integer     NOT NULL DEFAULT 1,
    next_try_at timestamptz NOT NULL
);
