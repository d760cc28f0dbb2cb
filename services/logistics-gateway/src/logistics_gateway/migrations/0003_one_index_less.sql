-- A shipment's id follows from its order's, so its primary key keeps an order from standing here twice already; this index was
-- a sixth of what a disclosure costs to write, and again to mark.
ALTER TABLE disclosures DROP CONSTRAINT disclosures_order_id_key;
