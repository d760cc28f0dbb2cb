-- How often parts that came after the end had an export's key destroyed again. It is bounded: what is sealed under a key
-- that nobody destroys then is no part of any export, and retention finds the key, which no event has named.
ALTER TABLE rights_exports ADD COLUMN late_rounds smallint NOT NULL DEFAULT 0;
