-- Rights requests, where each of their subjects' sagas stands, and what was answered. Ids, codes, counts and times only:
-- these rows prove what was done, so they outlive an erasure. The row of `rights_requests` is the aggregate: whoever changes
-- anything of a request locks it first.
CREATE TYPE request_kind AS ENUM ('access', 'portability', 'rectification', 'erasure', 'retention');
CREATE TYPE request_status AS ENUM
    ('open', 'awaiting_approval', 'waiting', 'running', 'completed', 'denied', 'cancelled');
CREATE TYPE request_reason AS ENUM
    ('fulfilled', 'cancelled', 'suspected_fraud', 'insuf_verification', 'no_match', 'claim_not_covered',
     'outside_jurisdiction', 'too_many_requests', 'other');
CREATE TYPE request_check AS ENUM ('document', 'callback', 'signed_in');
CREATE TYPE request_regime AS ENUM ('gdpr', 'ccpa');
CREATE TYPE rights_step AS ENUM
    ('preview', 'approve', 'wait', 'describe', 'fence', 'erase', 'drain', 'destroy', 'tell', 'probe', 'certify', 'held',
     'export', 'package', 'ready', 'rectify', 'done');
CREATE TYPE hold_basis AS ENUM ('open_anchor', 'legal_obligation', 'litigation', 'tax_audit', 'dispute');
CREATE TYPE manual_basis AS ENUM ('litigation', 'tax_audit', 'dispute');
CREATE TYPE key_state AS ENUM ('fenced', 'held', 'destroyed');

CREATE TABLE rights_requests (
    request_id    uuid           PRIMARY KEY,
    kind          request_kind   NOT NULL,
    status        request_status NOT NULL,
    opener_id     uuid           NOT NULL,
    opener_role   varchar(32)    NOT NULL,
    opened_at     timestamptz    NOT NULL,
    due_at        timestamptz    NOT NULL,
    data_classes  varchar(32)[],
    regime        request_regime NOT NULL,
    identity      request_check,
    approver_id   uuid,
    approver_role varchar(32),
    reason        request_reason,
    ended_at      timestamptz,
    -- a recipient's answer came after the certificate: it is to be amended
    is_amended_by timestamptz,
    CHECK ((reason IS NULL) = (ended_at IS NULL))
);
CREATE INDEX rights_requests_at ON rights_requests (opened_at, request_id);
CREATE INDEX rights_requests_to_amend ON rights_requests (is_amended_by) WHERE is_amended_by IS NOT NULL;

-- Where each subject stands. A worker leases a due row: it moves `next_try_at` on and leaves its own `lease_id`.
CREATE TABLE rights_subjects (
    request_id    uuid        NOT NULL REFERENCES rights_requests,
    subject_id    uuid        NOT NULL,
    revocation_id uuid        NOT NULL UNIQUE,
    step          rights_step NOT NULL,
    since         timestamptz NOT NULL,
    next_try_at   timestamptz,
    attempts      integer     NOT NULL,
    round         integer     NOT NULL,
    number        bigint      NOT NULL,
    question_id   uuid        UNIQUE,
    waiting_for   varchar(32)[] NOT NULL,
    lease_id      uuid,
    horizon       date,
    PRIMARY KEY (request_id, subject_id)
);
CREATE INDEX rights_subjects_due ON rights_subjects (next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX rights_subjects_of ON rights_subjects (subject_id);

-- What a retention request is limited to.
CREATE TABLE rights_names (
    request_id uuid        NOT NULL,
    subject_id uuid        NOT NULL,
    data_class varchar(32) NOT NULL,
    anchor     uuid        NOT NULL,
    PRIMARY KEY (request_id, subject_id, data_class, anchor),
    FOREIGN KEY (request_id, subject_id) REFERENCES rights_subjects
);

-- The last answer of each system at each step; one that is not final is asked for again.
CREATE TABLE rights_answers (
    request_id  uuid        NOT NULL,
    subject_id  uuid        NOT NULL,
    round       integer     NOT NULL,
    step        rights_step NOT NULL,
    system      varchar(32) NOT NULL,
    is_final    boolean     NOT NULL,
    erased      bigint      NOT NULL,
    left_over   bigint      NOT NULL,
    answered_at timestamptz NOT NULL,
    PRIMARY KEY (request_id, subject_id, round, step, system),
    FOREIGN KEY (request_id, subject_id) REFERENCES rights_subjects
);

-- What systems answered to the last question what they hold, part by part.
CREATE TABLE rights_parts (
    question_id uuid        NOT NULL,
    system      varchar(32) NOT NULL,
    part        integer     NOT NULL,
    parts       integer     NOT NULL,
    PRIMARY KEY (question_id, system, part)
);
CREATE TABLE rights_items (
    question_id uuid        NOT NULL,
    system      varchar(32) NOT NULL,
    part        integer     NOT NULL,
    data_class  varchar(32) NOT NULL,
    anchor      uuid        NOT NULL,
    row_count   bigint      NOT NULL,
    is_open     boolean     NOT NULL,
    closed_at   timestamptz,
    FOREIGN KEY (question_id, system, part) REFERENCES rights_parts ON DELETE CASCADE
);
CREATE INDEX rights_items_of ON rights_items (question_id, system, part);

-- What stays of an erased subject, why and until when.
CREATE TABLE rights_holds (
    request_id uuid        NOT NULL,
    subject_id uuid        NOT NULL,
    data_class varchar(32) NOT NULL,
    anchor     uuid        NOT NULL,
    basis      hold_basis  NOT NULL,
    until      timestamptz,
    row_count  bigint      NOT NULL,
    PRIMARY KEY (request_id, subject_id, data_class, anchor, basis),
    FOREIGN KEY (request_id, subject_id) REFERENCES rights_subjects
);

-- What the vault did to each key.
CREATE TABLE rights_keys (
    key_id      uuid        NOT NULL,
    request_id  uuid        NOT NULL,
    subject_id  uuid        NOT NULL,
    data_class  varchar(32) NOT NULL,
    anchor      uuid        NOT NULL,
    state       key_state   NOT NULL,
    fingerprint char(64)    NOT NULL,
    PRIMARY KEY (request_id, key_id),
    FOREIGN KEY (request_id, subject_id) REFERENCES rights_subjects
);

-- What recipients outside know of an erasure.
CREATE TABLE rights_recipients (
    request_id     uuid        NOT NULL,
    subject_id     uuid        NOT NULL,
    system         varchar(32) NOT NULL,
    recipient      varchar(32) NOT NULL,
    shipments      bigint      NOT NULL,
    told           bigint      NOT NULL,
    answered       bigint      NOT NULL,
    topic_clean_at timestamptz,
    PRIMARY KEY (request_id, subject_id, system, recipient),
    FOREIGN KEY (request_id, subject_id) REFERENCES rights_subjects
);

-- What support typed in for a rectification, sealed; the row goes with the owner's answer.
CREATE TABLE rectifications (
    request_id uuid PRIMARY KEY REFERENCES rights_requests,
    subject_id uuid NOT NULL,
    identity   bytea,
    contact    bytea
);
CREATE INDEX rectifications_of ON rectifications (subject_id);

-- Holds that somebody set by hand; `anchor` null: on the whole class.
CREATE TABLE holds (
    hold_id    uuid         PRIMARY KEY,
    subject_id uuid         NOT NULL,
    data_class varchar(32)  NOT NULL,
    anchor     uuid,
    basis      manual_basis NOT NULL,
    until      timestamptz,
    set_by     uuid         NOT NULL,
    set_at     timestamptz  NOT NULL,
    lifted_at  timestamptz
);
CREATE INDEX holds_of ON holds (subject_id) WHERE lifted_at IS NULL;

-- Never rewritten. `subject_id` is null where the whole request is meant.
CREATE TABLE rights_history (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id uuid        NOT NULL,
    subject_id uuid,
    at         timestamptz NOT NULL,
    what       varchar(32) NOT NULL,
    by_id      uuid,
    by_role    varchar(32) NOT NULL,
    reason     varchar(32)
);
CREATE INDEX rights_history_of ON rights_history (request_id, number);

DO $$
DECLARE who regrole;
BEGIN
    FOR who IN
        SELECT DISTINCT a.grantee::regrole FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'rights_history'::regclass AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON rights_history FROM %s', who);
    END LOOP;
END $$;

ALTER TYPE look_kind ADD VALUE IF NOT EXISTS 'preview';
