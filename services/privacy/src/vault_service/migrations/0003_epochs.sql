-- The life of a KEK epoch, where the provider finds its KEK, and the key under the blind indexes.

-- `handle`: what the provider needs to find the KEK; the KEK itself is never here.
ALTER TABLE epochs ADD COLUMN handle bytea NOT NULL DEFAULT '';
ALTER TABLE epochs ADD COLUMN closed_at timestamptz;
ALTER TABLE epochs ADD COLUMN emptied_at timestamptz;
ALTER TABLE epochs ADD COLUMN destroyed_at timestamptz;
ALTER TABLE epochs ADD CONSTRAINT epoch_times CHECK (
    (closed_at IS NULL) = (state = 'active')
    AND (emptied_at IS NULL) = (state IN ('active', 'closed'))
    AND (destroyed_at IS NULL) = (state <> 'destroyed')
);

-- Re-wrapping asks for the keys that an epoch still holds, and so does the count that ends it.
CREATE INDEX keys_by_epoch ON keys (epoch) WHERE state <> 'destroyed';

-- One row: the key under the blind indexes, which belongs to no epoch and is never changed.
CREATE TABLE index_kek (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    handle bytea NOT NULL
);
