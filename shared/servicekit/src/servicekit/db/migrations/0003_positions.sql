-- Which record was read last, and from which topic: one that was set back, or made anew under its name, is noticed.
ALTER TABLE kit.positions
    -- of the record before `next`; NULL: not known
    ADD COLUMN hash     uuid,
    -- Kafka's own id of the topic; NULL: not yet looked at
    ADD COLUMN topic_id uuid;

-- Where an operator had a stopped reader go on, and why.
CREATE TABLE kit.position_decisions (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reader     varchar(40) NOT NULL,
    topic      varchar(80) NOT NULL,
    partition  integer     NOT NULL,
    since      bigint      NOT NULL,
    onto       bigint      NOT NULL,
    action     varchar(5)  NOT NULL CHECK (action IN ('skip', 'reset')),
    reason     varchar(40) NOT NULL,
    operator   varchar(40) NOT NULL,
    decided_at timestamptz NOT NULL
);
