-- The disclosure ledger: what left to whom, or why it did not. The gateway's inbox (order_id) and outbox (state) at once.
CREATE TABLE disclosures (
    shipment_id    uuid        PRIMARY KEY,
    order_id       uuid        NOT NULL UNIQUE,
    subject_id     uuid        NOT NULL,
    state          varchar(8)  NOT NULL CHECK (state IN ('recorded', 'sent', 'withheld', 'blocked')),
    reason         varchar(80),
    carrier        varchar(32),
    lane           varchar(48),
    lane_version   integer,
    policy_version varchar(16) NOT NULL,
    data_class     varchar(32) NOT NULL,
    purpose        varchar(32) NOT NULL,
    fields         varchar(80)[] NOT NULL,
    digest         bytea,
    not_after      timestamptz,
    -- the record that it came from
    topic          varchar(80) NOT NULL,
    partition      integer     NOT NULL,
    position       bigint      NOT NULL,
    -- the sealed Delivery, kept until it was sent or will never be
    delivery       bytea,
    recorded_at    timestamptz NOT NULL,
    next_try_at    timestamptz,
    sent_at        timestamptz,
    recall         varchar(4)  CHECK (recall IN ('due', 'sent')),
    recalled_at    timestamptz,
    acknowledged_at timestamptz,
    refused_at     timestamptz,
    handed_over_at timestamptz,
    delivered_at   timestamptz,
    CHECK (state NOT IN ('recorded', 'sent') OR num_nulls(carrier, lane, lane_version, digest, not_after) = 0),
    CHECK (state <> 'recorded' OR delivery IS NOT NULL)
);
ALTER TABLE disclosures ALTER COLUMN delivery SET STORAGE EXTERNAL;
CREATE INDEX disclosures_subject ON disclosures (subject_id);
CREATE INDEX disclosures_unsent ON disclosures (topic, partition, position) WHERE state = 'recorded';
CREATE INDEX disclosures_blocked ON disclosures (next_try_at) WHERE state = 'blocked';
CREATE INDEX disclosures_recall_due ON disclosures (shipment_id) WHERE recall = 'due';

-- What carriers answered about shipments that this ledger does not have (yet): after a restore the order is on its way again.
CREATE TABLE early_replies (
    shipment_id uuid        NOT NULL,
    carrier     varchar(32) NOT NULL,
    kind        varchar(12) NOT NULL,
    at          timestamptz NOT NULL,
    arrived_at  timestamptz NOT NULL,
    PRIMARY KEY (shipment_id, carrier, kind)
);
CREATE INDEX early_replies_age ON early_replies (arrived_at);
