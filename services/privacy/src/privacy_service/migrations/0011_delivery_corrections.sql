-- To whom an order is to go instead, as support typed it in: sealed under the key of that order's delivery.
CREATE TABLE delivery_corrections (
    request_id uuid PRIMARY KEY REFERENCES rights_requests,
    subject_id uuid NOT NULL,
    order_id   uuid NOT NULL,
    delivery   bytea
);
CREATE INDEX delivery_corrections_of ON delivery_corrections (subject_id);
ALTER TYPE request_reason ADD VALUE 'not_under_way';
