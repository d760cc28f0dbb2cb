-- A key has one digest of each kind: the shop's own number of an order is one more.
ALTER TYPE index_kind ADD VALUE 'shop_order_number';
