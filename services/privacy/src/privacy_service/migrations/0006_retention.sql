-- Retention runs: what each asked the systems, what they found, and how much of it was given up. Ids, codes, times and
-- counts only; the rows about people go when the run is done with them.

-- One row: its lock puts in order whoever begins a run or opens requests.
CREATE TABLE retention_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);
INSERT INTO retention_head DEFAULT VALUES;

-- `opener_id` null: the daily run.
CREATE TABLE retention_runs (
    run_id    uuid        PRIMARY KEY,
    dry_run   boolean     NOT NULL,
    opener_id uuid,
    begun_at  timestamptz NOT NULL,
    ended_at  timestamptz
);
CREATE INDEX retention_runs_at ON retention_runs (begun_at);
CREATE INDEX retention_runs_under_way ON retention_runs (begun_at) WHERE ended_at IS NULL;

-- Asked of every system: which anchors of a class are past their time (a page of them, behind a place), or what is held of
-- one person.
CREATE TABLE retention_questions (
    question_id     uuid        PRIMARY KEY,
    run_id          uuid        NOT NULL REFERENCES retention_runs,
    data_class      varchar(32),
    is_unused       boolean     NOT NULL,
    closed_before   timestamptz,
    after_closed_at timestamptz,
    after_anchor    uuid,
    subject_id      uuid,
    asked_at        timestamptz NOT NULL,
    next_try_at     timestamptz,
    attempts        integer     NOT NULL,
    CHECK ((data_class IS NULL) = (closed_before IS NULL)),
    CHECK ((data_class IS NULL) = (subject_id IS NOT NULL)),
    CHECK ((after_closed_at IS NULL) = (after_anchor IS NULL))
);
CREATE INDEX retention_questions_due ON retention_questions (next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX retention_questions_of ON retention_questions (run_id) WHERE next_try_at IS NOT NULL;

-- Which systems have answered wholly; the last item of a page that was not all there is.
CREATE TABLE retention_answers (
    question_id    uuid        NOT NULL REFERENCES retention_questions ON DELETE CASCADE,
    system         varchar(32) NOT NULL,
    last_closed_at timestamptz,
    last_anchor    uuid,
    PRIMARY KEY (question_id, system)
);
CREATE TABLE retention_parts (
    question_id uuid        NOT NULL REFERENCES retention_questions ON DELETE CASCADE,
    system      varchar(32) NOT NULL,
    part        integer     NOT NULL,
    parts       integer     NOT NULL,
    PRIMARY KEY (question_id, system, part)
);

-- Keys that no event has named. Those that nobody holds either are found.
CREATE TABLE retention_suspects (
    question_id uuid        NOT NULL REFERENCES retention_questions ON DELETE CASCADE,
    data_class  varchar(32) NOT NULL,
    anchor      uuid        NOT NULL,
    PRIMARY KEY (question_id, data_class, anchor)
);

-- What is to be given up, until requests are opened for it or, in a dry run, it is counted.
CREATE TABLE retention_found (
    run_id     uuid        NOT NULL REFERENCES retention_runs,
    subject_id uuid        NOT NULL,
    data_class varchar(32) NOT NULL,
    anchor     uuid        NOT NULL,
    PRIMARY KEY (run_id, subject_id, data_class, anchor)
);

CREATE TABLE retention_counts (
    run_id     uuid        NOT NULL REFERENCES retention_runs,
    data_class varchar(32) NOT NULL,
    found      bigint      NOT NULL,
    held       bigint      NOT NULL,
    under_way  bigint      NOT NULL,
    opened     bigint      NOT NULL,
    PRIMARY KEY (run_id, data_class)
);

-- How far a run has looked through the vault's keys, in the order of their age. Empty class: all but those with a scan of
-- their own. The next run goes on where the last one ended.
CREATE TABLE retention_scans (
    run_id         uuid        NOT NULL REFERENCES retention_runs,
    data_class     varchar(32) NOT NULL,
    created_before timestamptz NOT NULL,
    after_at       timestamptz,
    after_key      uuid,
    is_done        boolean     NOT NULL,
    PRIMARY KEY (run_id, data_class)
);
CREATE INDEX retention_scans_open ON retention_scans (run_id) WHERE NOT is_done;

-- Whether a name is under way, or held, already.
CREATE INDEX rights_names_of ON rights_names (subject_id, data_class, anchor);
CREATE INDEX rights_holds_of ON rights_holds (subject_id, data_class, anchor);
