-- What becomes of a parcel on its way, and every end of it.
ALTER TABLE notices DROP CONSTRAINT notices_kind_check;
ALTER TABLE notices ADD CONSTRAINT notices_kind_check CHECK (kind IN ('order_received', 'cancelled', 'handed_over', 'delivered',
    'out_for_delivery', 'failed_attempt', 'returned', 'lost', 'unknown'));
