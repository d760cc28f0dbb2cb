-- Keys that may have no row under them in any system: those that no event has named, and those that a system has released.
-- Every system is asked; a key that is still held gets a later date for the next look. A row goes with its key.
CREATE TABLE key_looks (
    key_id     uuid        PRIMARY KEY,
    subject_id uuid        NOT NULL,
    data_class varchar(32) NOT NULL,
    anchor     uuid        NOT NULL,
    look_at    timestamptz NOT NULL
);
CREATE INDEX key_looks_due ON key_looks (look_at);
CREATE INDEX key_looks_of ON key_looks (subject_id, data_class, anchor);
-- Runs that only look at such keys; the daily one is none of them.
ALTER TABLE retention_runs ADD COLUMN only_looks boolean NOT NULL DEFAULT false;
