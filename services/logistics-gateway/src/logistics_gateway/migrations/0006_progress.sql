-- How far a shipment is: one rank and one word for whatever its carrier says, in the place of a column for each kind of reply.
ALTER TABLE disclosures
    -- the last kind of reply that counted, or how the gateway itself ended the shipment
    ADD COLUMN progress    varchar(16),
    ADD COLUMN rank        smallint NOT NULL DEFAULT 0,
    -- when, by the carrier's clock; and by our own, from which silence is counted
    ADD COLUMN progress_at timestamptz,
    ADD COLUMN heard_at    timestamptz,
    ADD COLUMN ended_at    timestamptz,
    ADD COLUMN refusal     varchar(16),
    ADD COLUMN blocked_since timestamptz;
UPDATE disclosures SET
    progress = CASE WHEN delivered_at IS NOT NULL THEN 'delivered' WHEN handed_over_at IS NOT NULL THEN 'handed_over'
        WHEN refused_at IS NOT NULL THEN 'refused' ELSE 'acknowledged' END,
    rank = CASE WHEN delivered_at IS NOT NULL THEN 90 WHEN handed_over_at IS NOT NULL THEN 30
        WHEN refused_at IS NOT NULL THEN 90 ELSE 10 END,
    progress_at = coalesce(delivered_at, handed_over_at, refused_at, acknowledged_at),
    heard_at = now(),
    ended_at = CASE WHEN delivered_at IS NOT NULL OR (refused_at IS NOT NULL AND handed_over_at IS NULL) THEN now() END
WHERE num_nonnulls(acknowledged_at, refused_at, handed_over_at, delivered_at) > 0;
UPDATE disclosures SET blocked_since = recorded_at WHERE state = 'blocked';
CREATE INDEX disclosures_stuck ON disclosures (blocked_since, shipment_id) WHERE state = 'blocked';
CREATE INDEX disclosures_underway ON disclosures (not_after, shipment_id)
    WHERE state = 'sent' AND ended_at IS NULL AND recall IS NULL;
-- `out_for_delivery`
ALTER TABLE early_replies ALTER COLUMN kind TYPE varchar(16);
