-- Numbers under which authorities know a consignee, such as a VAT or an EORI number: few orders have one.
CREATE TABLE order_registrations (
    consignee_id uuid  NOT NULL,
    order_id     uuid  NOT NULL,
    registration bytea NOT NULL,
    PRIMARY KEY (consignee_id, order_id)
) PARTITION BY HASH (consignee_id);
CREATE TABLE order_registrations_0 PARTITION OF order_registrations FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE order_registrations_1 PARTITION OF order_registrations FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE order_registrations_2 PARTITION OF order_registrations FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE order_registrations_3 PARTITION OF order_registrations FOR VALUES WITH (MODULUS 4, REMAINDER 3);
