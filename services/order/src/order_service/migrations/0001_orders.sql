-- Orders, and their personal parts as sealed tokens (bytea), each in a table of its own subject and class; see holdings.py.
-- An erased part leaves its table while the order lives on, and a consignee is erased without the buyer.

-- One row an order; its lock puts the order's events in order. Partitioned by the order: its id, which the buyer chooses as
-- idempotency key, is unique among all buyers (docs/protocols.md#ids-and-repeated-requests).
CREATE TABLE orders (
    order_id     uuid        PRIMARY KEY,
    buyer_id     uuid        NOT NULL,
    consignee_id uuid        NOT NULL,
    status       varchar(12) NOT NULL CHECK (status IN ('placed', 'confirmed', 'handed_over', 'delivered', 'cancelled')),
    status_at    timestamptz NOT NULL,
    placed_at    timestamptz NOT NULL
) PARTITION BY HASH (order_id);
CREATE INDEX orders_newest ON orders (buyer_id, placed_at DESC, order_id DESC);
CREATE TABLE orders_0 PARTITION OF orders FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE orders_2 PARTITION OF orders FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE orders_3 PARTITION OF orders FOR VALUES WITH (MODULUS 4, REMAINDER 3);

CREATE TABLE order_deliveries (
    consignee_id uuid  NOT NULL,
    order_id     uuid  NOT NULL,
    delivery     bytea NOT NULL,
    PRIMARY KEY (consignee_id, order_id)
) PARTITION BY HASH (consignee_id);
CREATE TABLE order_deliveries_0 PARTITION OF order_deliveries FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE order_deliveries_1 PARTITION OF order_deliveries FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE order_deliveries_2 PARTITION OF order_deliveries FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE order_deliveries_3 PARTITION OF order_deliveries FOR VALUES WITH (MODULUS 4, REMAINDER 3);

CREATE TABLE order_records (
    buyer_id uuid  NOT NULL,
    order_id uuid  NOT NULL,
    record   bytea NOT NULL,
    PRIMARY KEY (buyer_id, order_id)
) PARTITION BY HASH (buyer_id);
CREATE TABLE order_records_0 PARTITION OF order_records FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE order_records_1 PARTITION OF order_records FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE order_records_2 PARTITION OF order_records FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE order_records_3 PARTITION OF order_records FOR VALUES WITH (MODULUS 4, REMAINDER 3);

CREATE TABLE order_payments (
    buyer_id uuid  NOT NULL,
    order_id uuid  NOT NULL,
    payment  bytea NOT NULL,
    PRIMARY KEY (buyer_id, order_id)
) PARTITION BY HASH (buyer_id);
CREATE TABLE order_payments_0 PARTITION OF order_payments FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE order_payments_1 PARTITION OF order_payments FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE order_payments_2 PARTITION OF order_payments FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE order_payments_3 PARTITION OF order_payments FOR VALUES WITH (MODULUS 4, REMAINDER 3);
