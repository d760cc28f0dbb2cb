-- What every participant answered when it was asked how much it holds about a person.
CREATE TABLE probes (
    request_id uuid        PRIMARY KEY,
    subject_id uuid        NOT NULL,
    asked_at   timestamptz NOT NULL
);
CREATE INDEX probes_of_subject ON probes (subject_id);
CREATE TABLE probe_answers (
    request_id  uuid        NOT NULL REFERENCES probes ON DELETE CASCADE,
    system      varchar(32) NOT NULL,
    row_count   bigint      NOT NULL,
    answered_at timestamptz NOT NULL,
    PRIMARY KEY (request_id, system)
);
