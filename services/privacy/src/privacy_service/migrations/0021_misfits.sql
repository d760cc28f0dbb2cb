-- A correction of a delivery may not fit the carrier's lane; the history says which fields.
ALTER TYPE request_reason ADD VALUE 'does_not_fit';
