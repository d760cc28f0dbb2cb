-- What participants hand over for access and portability requests: sealed parts, and the one-time links to fetch them.
-- The parts are sealed under the key (class export, subject, anchor = request), which dies when the export ends.
CREATE TYPE export_kind AS ENUM ('access', 'portability');
CREATE TYPE export_end AS ENUM ('fetched', 'expired', 'cancelled');

-- `revocation_id` is the request id under which the vault's list has the destruction of the key: a part that comes late
-- opens a key of the next generation, which is then destroyed under another id.
CREATE TABLE rights_exports (
    request_id    uuid        PRIMARY KEY,
    kind          export_kind NOT NULL,
    begun_at      timestamptz NOT NULL,
    ready_at      timestamptz,
    expires_at    timestamptz,
    ended_at      timestamptz,
    ended_as      export_end,
    revocation_id uuid        NOT NULL,
    destroyed_at  timestamptz,
    CHECK ((ready_at IS NULL) = (expires_at IS NULL)),
    CHECK ((ended_at IS NULL) = (ended_as IS NULL)),
    CHECK (destroyed_at IS NULL OR ended_at IS NOT NULL)
);
CREATE INDEX rights_exports_ready ON rights_exports (expires_at) WHERE ready_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX rights_exports_ended ON rights_exports (ended_at) WHERE ended_at IS NOT NULL AND destroyed_at IS NULL;

-- Whom it is about. An erased person's row goes, so that nobody waits for their parts.
CREATE TABLE rights_export_subjects (
    request_id uuid NOT NULL REFERENCES rights_exports ON DELETE CASCADE,
    subject_id uuid NOT NULL,
    PRIMARY KEY (request_id, subject_id)
);
CREATE INDEX rights_export_subjects_of ON rights_export_subjects (subject_id);

-- Numbered from 1 within an attempt; an attempt is whole when all parts up to its last one are there.
CREATE TABLE rights_export_parts (
    request_id  uuid        NOT NULL REFERENCES rights_exports ON DELETE CASCADE,
    subject_id  uuid        NOT NULL,
    system      varchar(32) NOT NULL,
    attempt     integer     NOT NULL,
    part        integer     NOT NULL,
    is_last     boolean     NOT NULL,
    row_count   bigint      NOT NULL,
    content     bytea,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (request_id, subject_id, system, attempt, part)
);
CREATE INDEX rights_export_parts_of ON rights_export_parts (subject_id);

-- One unused link at most for each export. Only the SHA-256 of the token is kept; the token has 256 random bits.
CREATE TABLE rights_export_links (
    token_hash bytea       PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    request_id uuid        NOT NULL REFERENCES rights_exports ON DELETE CASCADE,
    made_at    timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE UNIQUE INDEX one_unused_link ON rights_export_links (request_id) WHERE used_at IS NULL;

ALTER TYPE look_kind ADD VALUE IF NOT EXISTS 'export_link';
