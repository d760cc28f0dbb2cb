-- A look that another service has reported has the id of its event, so that the event read again adds nothing.
ALTER TYPE look_kind ADD VALUE IF NOT EXISTS 'tax_record';
ALTER TABLE staff_looks ADD COLUMN event_id uuid;
CREATE UNIQUE INDEX staff_looks_once ON staff_looks (event_id) WHERE event_id IS NOT NULL;
