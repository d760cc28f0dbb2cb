-- The list of revocations, what each request asked for, and who holds keys.

-- In the order in which a key may pass through them; there is no way back.
ALTER TYPE key_state ADD VALUE 'held' BEFORE 'fenced';

-- Nothing has been written to the first form of the list.
DROP TABLE revocations;
DROP TYPE revocation_action;
CREATE TYPE revocation_action AS ENUM ('fence', 'hold', 'destroy');
ALTER TABLE fences DROP COLUMN revision;

-- The hash of the last entry: what the next one names as the one before.
ALTER TABLE list_head ADD COLUMN hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex');

-- SHA-256 of a label and the key, taken when it is fenced or held; it outlives the key.
ALTER TABLE keys ADD COLUMN fingerprint bytea CHECK (octet_length(fingerprint) = 32);

CREATE TABLE revocations (
    number bigint PRIMARY KEY,
    action revocation_action NOT NULL,
    request_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    is_final boolean NOT NULL,
    key_ids uuid[] NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
CREATE INDEX revocations_by_request ON revocations (request_id, subject_id);
CREATE INDEX revocations_unpublished ON revocations (number) WHERE published_at IS NULL;

-- What a request asked to fence: a class, an anchor, both, or (neither) the whole person. Up to which generation is
-- settled once, so that a repetition of the call leaves alone what came in after the first.
CREATE TABLE revocation_scopes (
    request_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    data_class varchar(32),
    anchor uuid,
    generation integer,
    UNIQUE NULLS NOT DISTINCT (request_id, subject_id, data_class, anchor),
    CHECK ((data_class IS NULL AND anchor IS NULL) = (generation IS NULL))
);

-- Processes that got keys. `done`: all work begun with keys that entries up to this number name has ended.
CREATE TABLE holders (
    system varchar(32) NOT NULL,
    holder uuid NOT NULL,
    incarnation uuid NOT NULL,
    done bigint NOT NULL,
    lease_until timestamptz NOT NULL,
    PRIMARY KEY (system, holder)
);

-- One row: the process that publishes the list, and until when nobody else does.
CREATE TABLE publisher (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    process uuid,
    until timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO publisher DEFAULT VALUES;
