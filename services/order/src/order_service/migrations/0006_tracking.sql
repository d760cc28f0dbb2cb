-- What carriers say on the way, where the parcel can be followed, and why an order cannot leave.
ALTER TABLE orders DROP CONSTRAINT orders_status_check;
ALTER TABLE orders ALTER COLUMN status TYPE varchar(16);
ALTER TABLE orders ADD CONSTRAINT orders_status_check CHECK (status IN ('placed', 'confirmed', 'label_created', 'handed_over',
    'in_transit', 'out_for_delivery', 'failed_attempt', 'delivered', 'returned', 'lost', 'unknown', 'cancelled'));
-- a code of the gateway's, such as `no_lane`; NULL when nothing keeps the order from leaving
ALTER TABLE orders ADD COLUMN blocked varchar(80), ADD COLUMN blocked_since timestamptz;
CREATE TABLE order_tracking (
    consignee_id uuid        NOT NULL,
    order_id     uuid        NOT NULL,
    tracking     bytea       NOT NULL,
    carrier      varchar(32) NOT NULL,
    PRIMARY KEY (consignee_id, order_id)
) PARTITION BY HASH (consignee_id);
CREATE TABLE order_tracking_0 PARTITION OF order_tracking FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE order_tracking_1 PARTITION OF order_tracking FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE order_tracking_2 PARTITION OF order_tracking FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE order_tracking_3 PARTITION OF order_tracking FOR VALUES WITH (MODULUS 4, REMAINDER 3);
