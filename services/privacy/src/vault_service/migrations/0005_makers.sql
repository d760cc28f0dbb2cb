-- Which system made a key, by being the first to ask for it. Of the keys that are there already the class says it: account and
-- order are the only ones that seal their classes anew, the privacy service seals corrections under keys that they made.
-- Exports and quarantined records are sealed by many systems, and classes of third parties are not known here: `unknown`,
-- which is no system's name.
ALTER TABLE keys ADD COLUMN maker varchar(32);
UPDATE keys SET maker = CASE
    WHEN data_class IN ('identity', 'contact', 'credentials', 'behaviour') THEN 'account'
    WHEN data_class IN ('delivery', 'order_record', 'payment') THEN 'order'
    ELSE 'unknown' END;
ALTER TABLE keys ALTER COLUMN maker SET NOT NULL;
