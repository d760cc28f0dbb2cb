-- Who holds what about whom, who received it, and which staff member looked. Ids, codes and times only: nothing personal
-- beyond pseudonyms. Rows of one person stand in one hash partition.

-- Learned from the headers of events. `key_id` is the key of the latest event: the vault asks which keys events have named.
-- Null where a system keeps only pseudonyms.
CREATE TABLE inventory (
    subject_id uuid        NOT NULL,
    system     varchar(32) NOT NULL,
    data_class varchar(32) NOT NULL,
    anchor     uuid        NOT NULL,
    key_id     uuid,
    first_seen timestamptz NOT NULL,
    last_seen  timestamptz NOT NULL,
    PRIMARY KEY (subject_id, system, data_class, anchor),
    CHECK (first_seen <= last_seen)
) PARTITION BY HASH (subject_id);

-- Learned from `DeliveryDisclosed`: the fields of a class that left, per lane. What left with each parcel is in the
-- gateway's own ledger.
CREATE TABLE recipients (
    subject_id   uuid           NOT NULL,
    anchor       uuid           NOT NULL,
    data_class   varchar(32)    NOT NULL,
    carrier      varchar(32)    NOT NULL,
    lane         varchar(48)    NOT NULL,
    lane_version integer        NOT NULL,
    fields       varchar(100)[] NOT NULL,
    first_seen   timestamptz    NOT NULL,
    last_seen    timestamptz    NOT NULL,
    PRIMARY KEY (subject_id, anchor, data_class, carrier, lane, lane_version),
    CHECK (first_seen <= last_seen)
) PARTITION BY HASH (subject_id);

DO $$
DECLARE parent text; part integer;
BEGIN
    FOREACH parent IN ARRAY ARRAY['inventory', 'recipients'] LOOP
        FOR part IN 0..7 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 8, REMAINDER %s)',
                           parent || '_' || part, parent, part);
        END LOOP;
    END LOOP;
END $$;

-- Every look of a staff member at a person; `subject_id` is null where a search found nobody. Never the search term.
CREATE TYPE look_kind AS ENUM ('find_email', 'find_phone', 'find_order_number', 'inventory', 'probe');
CREATE TABLE staff_looks (
    look_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    staff_id   uuid        NOT NULL,
    role       varchar(32) NOT NULL,
    looked_at  timestamptz NOT NULL,
    kind       look_kind   NOT NULL,
    subject_id uuid
);
CREATE INDEX staff_looks_at ON staff_looks (subject_id, looked_at);

-- Append-only: nobody but the owner of the schema may change or remove a look.
DO $$
DECLARE who regrole;
BEGIN
    FOR who IN
        SELECT DISTINCT a.grantee::regrole FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'staff_looks'::regclass AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON staff_looks FROM %s', who);
    END LOOP;
END $$;
