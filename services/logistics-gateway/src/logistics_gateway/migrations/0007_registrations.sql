-- Numbers under which authorities know a consignee, sealed: few orders have them. They stay for corrections, which replace all
-- that the carrier has.
CREATE TABLE registrations (
    subject_id   uuid  NOT NULL,
    order_id     uuid  NOT NULL,
    registration bytea NOT NULL,
    PRIMARY KEY (subject_id, order_id)
);
