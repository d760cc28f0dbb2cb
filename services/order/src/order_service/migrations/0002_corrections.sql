-- The version of a delivery: the buyer may correct its consignee until the parcel is handed over.
ALTER TABLE order_deliveries ADD COLUMN number integer NOT NULL DEFAULT 1 CHECK (number >= 1);
