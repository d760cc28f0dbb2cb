-- When the order of a shipment was placed, by the record it came in: no carrier can know of the shipment before. It stays as it
-- is when a correction, or a ledger that was set back, is recorded later. Older lines lack it: their `recorded_at` counts.
ALTER TABLE disclosures ADD COLUMN ordered_at timestamptz;
