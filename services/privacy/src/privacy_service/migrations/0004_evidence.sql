-- The evidence log: what was decided, seen, disclosed and destroyed, in a Merkle tree with signed checkpoints, and the
-- certificates that rest on it. Ids, codes, times, numbers and hashes only. All tables are append-only.

CREATE TYPE leaf_kind AS ENUM ('decision', 'look', 'disclosure', 'key_destruction', 'certificate');

-- Written in the transaction of what they record. `xact_id` is that transaction: once all transactions before it have
-- ended, the leaf's place in the order (xact_id, entry_id) cannot change any more, and the sequencer gives it an index.
CREATE TABLE evidence_leaves (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    leaf_id  uuid      NOT NULL UNIQUE,
    kind     leaf_kind NOT NULL,
    body     bytea     NOT NULL CHECK (octet_length(body) <= 65536),
    xact_id  xid8      NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX evidence_leaves_in_order ON evidence_leaves (xact_id, entry_id);

-- The order of the log. `cursor_*` is how far the leaves were taken up when this index was given.
CREATE TABLE evidence_sequence (
    leaf_index   bigint PRIMARY KEY CHECK (leaf_index >= 0),
    entry_id     bigint NOT NULL UNIQUE REFERENCES evidence_leaves,
    cursor_xact  xid8   NOT NULL,
    cursor_entry bigint NOT NULL
);

-- The root of each perfect subtree, leaves included: it covers 2^level leaves from node_index * 2^level on.
CREATE TABLE evidence_nodes (
    level      smallint NOT NULL,
    node_index bigint   NOT NULL,
    hash       bytea    NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, node_index)
);

-- Signed by the log; a cosignature says that the witness saw it, too.
CREATE TABLE evidence_checkpoints (
    size bigint PRIMARY KEY CHECK (size > 0),
    note text   NOT NULL
);
CREATE TABLE evidence_cosignatures (
    size         bigint      PRIMARY KEY REFERENCES evidence_checkpoints,
    line         text        NOT NULL,
    cosigned_at  timestamptz NOT NULL
);

-- The canonical JSON of each certificate; what proves it is put around it when it is read.
CREATE TABLE certificates (
    certificate_id uuid        PRIMARY KEY,
    request_id     uuid        NOT NULL,
    amendment      integer     NOT NULL CHECK (amendment >= 0),
    issued_at      timestamptz NOT NULL,
    leaf_id        uuid        NOT NULL,
    body           bytea       NOT NULL,
    UNIQUE (request_id, amendment)
);

-- Nobody but the owner of the schema may change or remove evidence; what the owner does shows in the hashes.
DO $$
DECLARE who regrole; part text;
BEGIN
    FOREACH part IN ARRAY ARRAY['evidence_leaves', 'evidence_sequence', 'evidence_nodes', 'evidence_checkpoints',
                                'evidence_cosignatures', 'certificates'] LOOP
        FOR who IN
            SELECT DISTINCT a.grantee::regrole FROM pg_class c, aclexplode(c.relacl) a
            WHERE c.oid = part::regclass AND a.grantee NOT IN (0, c.relowner)
        LOOP
            EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %I FROM %s', part, who);
        END LOOP;
    END LOOP;
END $$;
