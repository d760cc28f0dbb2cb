-- Versions of a delivery, and what becomes of a disclosure when its delivery is erased.
ALTER TABLE disclosures
    -- the key of the delivery: what the list of revocations names, also when the delivery itself has left the row
    ADD COLUMN key_id          uuid    NOT NULL,
    -- the version of the delivery that the line is about; the highest wins
    ADD COLUMN number          integer NOT NULL DEFAULT 1,
    -- the notice of the erasure to the carrier, the request that it goes back to, and the carrier's answer
    ADD COLUMN erasure         varchar(4),
    ADD COLUMN erasure_request uuid,
    ADD COLUMN erasure_sent_at timestamptz,
    ADD COLUMN erased_at       timestamptz;
ALTER TABLE disclosures ADD CONSTRAINT disclosures_number CHECK (number >= 1);
ALTER TABLE disclosures ADD CONSTRAINT disclosures_erasure CHECK (
    (erasure IS NULL AND erasure_request IS NULL)
    OR (erasure IN ('due', 'sent') AND num_nulls(erasure_request, carrier, not_after) = 0)
);
CREATE INDEX disclosures_erasure_due ON disclosures (shipment_id) WHERE erasure = 'due';

-- Who asked which recipients know of a person's erasure: whenever a recipient is told or answers, they hear the whole state.
CREATE TABLE recipient_requests (
    request_id uuid        NOT NULL,
    subject_id uuid        NOT NULL,
    asked_at   timestamptz NOT NULL,
    PRIMARY KEY (subject_id, request_id)
);
