-- How often somebody has tried something, under a keyed digest. What is lost in a crash is counted anew: no WAL is written.
CREATE UNLOGGED TABLE kit.rate_limits (
    digest  uuid        PRIMARY KEY,
    tries   integer     NOT NULL,
    ends_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX rate_limits_over ON kit.rate_limits (ends_at);
