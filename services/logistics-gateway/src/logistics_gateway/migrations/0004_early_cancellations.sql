-- Cancellations that came before their orders. They go when the order comes, or can come no more.
CREATE TABLE early_cancellations (
    shipment_id uuid        PRIMARY KEY,
    arrived_at  timestamptz NOT NULL
);
CREATE INDEX early_cancellations_age ON early_cancellations (arrived_at);
