-- A release counts when an event of the same system has named this anchor under this key. It does not keep out another one
-- that gives the key another name. '' is the vault's own word.
ALTER TABLE key_looks ADD COLUMN released_by varchar(32) NOT NULL DEFAULT '';
ALTER TABLE key_looks DROP CONSTRAINT key_looks_pkey;
ALTER TABLE key_looks ADD PRIMARY KEY (key_id, subject_id, data_class, anchor, released_by);
-- Whether a daily run is due is asked every second: runs that only look at keys are many, and none of its business.
CREATE INDEX retention_runs_daily ON retention_runs (begun_at) WHERE NOT dry_run AND NOT only_looks;
