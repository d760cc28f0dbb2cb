-- The systems that had not answered when the next run began: a run ends with their names, and the next one asks them again.
ALTER TABLE retention_runs ADD COLUMN unanswered varchar(32)[] NOT NULL DEFAULT '{}';
