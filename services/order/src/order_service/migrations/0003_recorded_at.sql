-- When this service recorded the status that is in force: retention and legal duties count from it. `status_at` may be a time
-- that a carrier states, and is shown only. Older rows lack it: for them an order closed not before it was placed.
ALTER TABLE orders ADD COLUMN recorded_at timestamptz;
