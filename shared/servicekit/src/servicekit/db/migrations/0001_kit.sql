-- The tables that every service has in the schema `kit`: outbox, positions, inbox, quarantine.

-- Events committed with the state change. Rows are marked, not deleted, and dropped by the day (docs/protocols.md#publishing).
CREATE SEQUENCE kit.outbox_number;
CREATE TABLE kit.outbox (
    number       bigint      NOT NULL DEFAULT nextval('kit.outbox_number'),
    day          date        NOT NULL,
    slot         smallint    NOT NULL,
    event_id     uuid        NOT NULL,
    topic        varchar(80) NOT NULL,
    key          uuid        NOT NULL,
    headers      bytea       NOT NULL,
    body         bytea       NOT NULL,
    published_at timestamptz,
    PRIMARY KEY (day, number)
) PARTITION BY RANGE (day);
CREATE INDEX outbox_unpublished ON kit.outbox (slot, number) WHERE published_at IS NULL;

-- One row a slot: a relay holds the row's lock while it publishes, so events of one aggregate keep their order.
CREATE TABLE kit.relay_slots (slot smallint PRIMARY KEY);
INSERT INTO kit.relay_slots SELECT generate_series(0, 15);

-- How far each reader is. It moves in the transaction of the effects.
CREATE TABLE kit.positions (
    reader    varchar(40) NOT NULL,
    topic     varchar(80) NOT NULL,
    partition integer     NOT NULL,
    next      bigint      NOT NULL,
    PRIMARY KEY (reader, topic, partition)
);

-- Ids of events already applied, for effects without a natural key. `day` is the event's own.
CREATE TABLE kit.inbox (
    day      date        NOT NULL,
    event_id uuid        NOT NULL,
    reader   varchar(40) NOT NULL,
    PRIMARY KEY (day, event_id, reader)
) PARTITION BY RANGE (day);

-- Records that could not be processed, sealed as they came, and the later ones of their aggregate, parked behind them.
CREATE TABLE kit.quarantine (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reader      varchar(40) NOT NULL,
    topic       varchar(80) NOT NULL,
    partition   integer     NOT NULL,
    position    bigint      NOT NULL,
    aggregate   uuid,
    anchor      uuid        NOT NULL,
    reason      varchar(40) NOT NULL,
    record      bytea       NOT NULL,
    arrived_at  timestamptz NOT NULL,
    replayed_at timestamptz,
    UNIQUE (reader, topic, partition, position)
);
CREATE INDEX quarantine_waiting ON kit.quarantine (reader, aggregate) WHERE replayed_at IS NULL;
ALTER TABLE kit.outbox ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE kit.quarantine ALTER COLUMN record SET STORAGE EXTERNAL;

-- Daily partitions: made a week ahead, dropped when older than `keep_days`, the outbox only when all is published.
-- The application role may not change the schema; it may call this.
CREATE FUNCTION kit.roll_partitions(today date, keep_days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = kit, pg_temp AS $$
DECLARE
    parent text;
    child  record;
    day    date;
    unsent boolean;
    changed integer := 0;
BEGIN
    FOREACH parent IN ARRAY ARRAY['outbox', 'inbox'] LOOP
        FOR day IN SELECT generate_series(today - 2, today + 7, interval '1 day')::date LOOP
            IF to_regclass(format('kit.%I', parent || to_char(day, '_YYYYMMDD'))) IS NULL THEN
                BEGIN
                    EXECUTE format('CREATE TABLE kit.%I PARTITION OF kit.%I FOR VALUES FROM (%L) TO (%L)',
                                   parent || to_char(day, '_YYYYMMDD'), parent, day, day + 1);
                    changed := changed + 1;
                EXCEPTION WHEN check_violation THEN
                    NULL; -- rows of that day stand in the default partition already: they stay there
                END;
            END IF;
        END LOOP;
        FOR child IN
            SELECT c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') AS of_day
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = format('kit.%I', parent)::regclass AND c.relname ~ '_[0-9]{8}$'
        LOOP
            IF child.of_day < today - keep_days THEN
                unsent := false;
                IF parent = 'outbox' THEN
                    EXECUTE format('SELECT EXISTS (SELECT FROM kit.%I WHERE published_at IS NULL)', child.relname)
                        INTO unsent;
                END IF;
                IF NOT unsent THEN
                    EXECUTE format('DROP TABLE kit.%I', child.relname);
                    changed := changed + 1;
                END IF;
            END IF;
        END LOOP;
    END LOOP;
    RETURN changed;
END $$;
-- An event older or younger than the days at hand still finds its place.
CREATE TABLE kit.outbox_other PARTITION OF kit.outbox DEFAULT;
CREATE TABLE kit.inbox_other PARTITION OF kit.inbox DEFAULT;
SELECT kit.roll_partitions(current_date, 10);
