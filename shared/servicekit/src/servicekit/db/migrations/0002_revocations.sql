-- What this system has applied of the vault's list of revocations (docs/protocols.md#the-list-of-revocations), and what it still has to hand over.

-- How far it is. One row; locked while a page of the list is applied.
CREATE TABLE kit.revocation_position (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    incarnation varchar(64) NOT NULL DEFAULT '',
    number      bigint      NOT NULL DEFAULT 0 CHECK (number >= 0),
    hash        varchar(64) NOT NULL DEFAULT repeat('0', 64)
);
INSERT INTO kit.revocation_position DEFAULT VALUES;

-- Keys that are fenced or destroyed: what names one of them is not stored. Kept for ever, as the list is: an event or a
-- backup may bring back what they sealed.
CREATE TABLE kit.revoked_keys (
    key_id     uuid   PRIMARY KEY,
    subject_id uuid   NOT NULL,
    number     bigint NOT NULL
);
CREATE INDEX revoked_keys_of_subject ON kit.revoked_keys (subject_id);

-- People who are fenced for good: rows that hold no token but their id go, and none is added.
CREATE TABLE kit.revoked_subjects (
    subject_id uuid   PRIMARY KEY,
    number     bigint NOT NULL
);

-- How many rows went for a request: what the participant answers.
CREATE TABLE kit.erased_rows (
    request_id uuid   NOT NULL,
    subject_id uuid   NOT NULL,
    rows       bigint NOT NULL,
    PRIMARY KEY (request_id, subject_id)
);

-- Exports that were asked for and are not yet handed over; a crash starts the next attempt.
CREATE TABLE kit.exports (
    request_id   uuid        NOT NULL,
    subject_id   uuid        NOT NULL,
    asked_at     timestamptz NOT NULL,
    attempt      integer     NOT NULL DEFAULT 0,
    leased_until timestamptz,
    PRIMARY KEY (request_id, subject_id)
);
