-- When this service heard of an order's event, by its own clock: retention counts from it. `at` may be a time that a carrier
-- states, and is shown only. Older rows lack it.
ALTER TABLE notices ADD COLUMN recorded_at timestamptz;
