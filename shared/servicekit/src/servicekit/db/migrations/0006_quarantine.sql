-- How a record leaves quarantine, and what bounds it there.
ALTER TABLE kit.quarantine ADD COLUMN ended_at timestamptz;
-- NULL while it waits. The content goes with the end of the wait.
ALTER TABLE kit.quarantine ADD COLUMN outcome varchar(12);
-- Who discarded or replayed it and why; NULL where no operator did.
ALTER TABLE kit.quarantine ADD COLUMN ended_by varchar(40);
ALTER TABLE kit.quarantine ADD COLUMN ended_for varchar(40);
-- Later records of its aggregate wait behind it.
ALTER TABLE kit.quarantine ADD COLUMN blocks boolean NOT NULL DEFAULT true;
-- What a repeat of the record has in common with it: a repeat takes its place.
ALTER TABLE kit.quarantine ADD COLUMN name uuid;
-- The key of `record`: when it dies, the record expires.
ALTER TABLE kit.quarantine ADD COLUMN key_id uuid;
-- NULL: only the place is kept, and Kafka has the record.
ALTER TABLE kit.quarantine ALTER COLUMN record DROP NOT NULL;
UPDATE kit.quarantine SET ended_at = replayed_at, outcome = 'replayed' WHERE replayed_at IS NOT NULL;
DROP INDEX kit.quarantine_waiting;
ALTER TABLE kit.quarantine DROP COLUMN replayed_at;
CREATE INDEX quarantine_waiting ON kit.quarantine (reader, aggregate) WHERE ended_at IS NULL;
UPDATE kit.quarantine SET key_id = encode(substring(record FROM 2 FOR 16), 'hex')::uuid;
ALTER TABLE kit.quarantine ADD CONSTRAINT quarantine_outcome
    CHECK (outcome IN ('replayed', 'discarded', 'expired', 'replaced') AND ended_at IS NOT NULL OR outcome IS NULL AND ended_at IS NULL);
CREATE INDEX quarantine_ended ON kit.quarantine (ended_at) WHERE ended_at IS NOT NULL;
