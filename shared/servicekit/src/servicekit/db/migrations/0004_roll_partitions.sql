-- Partitions are rolled by every role: safe from several processes at once.
CREATE OR REPLACE FUNCTION kit.roll_partitions(today date, keep_days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = kit, pg_temp AS $$
DECLARE
    parent text;
    child  record;
    day    date;
    unsent boolean;
    changed integer := 0;
BEGIN
    -- Every process of the service calls this: one at a time, and the others need not wait.
    IF NOT pg_try_advisory_xact_lock(hashtext('kit.roll_partitions')) THEN
        RETURN 0;
    END IF;
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
