-- Keys, their KEK epochs, the blind-index directory, and the places of fences and revocations.

CREATE TYPE key_state AS ENUM ('active', 'fenced', 'destroyed');
CREATE TYPE epoch_state AS ENUM ('active', 'closed', 'empty', 'destroyed');
CREATE TYPE index_kind AS ENUM ('email', 'phone', 'order_number');
CREATE TYPE revocation_action AS ENUM ('fence', 'destroy');

-- One row. `revision` is the number of the last revocation; it stays locked until that revocation commits, so numbers
-- become visible in order and without gaps. `incarnation` tells this vault from a restored or a new one.
CREATE TABLE list_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    incarnation uuid NOT NULL DEFAULT gen_random_uuid(),
    revision bigint NOT NULL DEFAULT 0
);
INSERT INTO list_head DEFAULT VALUES;

-- `probe` is a known text wrapped under the epoch's KEK: a vault with another KEK finds out before it serves.
CREATE TABLE epochs (
    epoch integer PRIMARY KEY CHECK (epoch > 0),
    state epoch_state NOT NULL,
    probe bytea NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX one_active_epoch ON epochs (state) WHERE state = 'active';

-- A destroyed key keeps its row, as the fingerprint that it was there, and loses `wrapped`.
-- No foreign key to epochs: wrapping share-locks the epoch's row, once per batch.
CREATE TABLE keys (
    key_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    data_class varchar(32) NOT NULL,
    anchor uuid NOT NULL,
    generation integer NOT NULL CHECK (generation > 0),
    state key_state NOT NULL DEFAULT 'active',
    epoch integer NOT NULL,
    wrapped bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subject_id, key_id),
    UNIQUE (subject_id, data_class, anchor, generation),
    CHECK ((wrapped IS NULL) = (state = 'destroyed'))
) PARTITION BY HASH (subject_id);
CREATE UNIQUE INDEX one_active_key ON keys (subject_id, data_class, anchor) WHERE state = 'active';

-- One digest per key and kind: a corrected e-mail address replaces the former one. The rows die with their key.
CREATE TABLE directory (
    subject_id uuid NOT NULL,
    key_id uuid NOT NULL,
    kind index_kind NOT NULL,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    PRIMARY KEY (subject_id, key_id, kind),
    FOREIGN KEY (subject_id, key_id) REFERENCES keys ON DELETE CASCADE
) PARTITION BY HASH (subject_id);
CREATE INDEX directory_by_digest ON directory (kind, digest);

-- Of a whole subject (no class, final), or of a class up to a generation.
CREATE TABLE fences (
    subject_id uuid NOT NULL,
    data_class varchar(32),
    generation integer,
    revision bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (subject_id, data_class),
    CHECK ((data_class IS NULL) = (generation IS NULL))
) PARTITION BY HASH (subject_id);

DO $$
DECLARE parent text; part integer;
BEGIN
    FOREACH parent IN ARRAY ARRAY['keys', 'directory', 'fences'] LOOP
        FOR part IN 0..7 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 8, REMAINDER %s)',
                           parent || '_' || part, parent, part);
        END LOOP;
    END LOOP;
END $$;

CREATE TABLE revocations (
    number bigint PRIMARY KEY,
    action revocation_action NOT NULL,
    subject_id uuid NOT NULL,
    data_classes varchar(32)[] NOT NULL,
    anchors uuid[] NOT NULL,
    generation integer NOT NULL,
    request_id uuid NOT NULL,
    previous_hash bytea NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE lease_counts (
    system varchar(32) NOT NULL,
    data_class varchar(32) NOT NULL,
    day date NOT NULL,
    ensured bigint NOT NULL DEFAULT 0,
    leased bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (system, data_class, day)
);
