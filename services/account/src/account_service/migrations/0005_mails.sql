-- The language of a person's mails: a code, chosen by the person.
ALTER TABLE accounts ADD COLUMN language varchar(2) NOT NULL DEFAULT 'en' CHECK (language IN ('en', 'de', 'fr', 'es'));

-- Mails, recorded before they are sent. `contact` is the address that the mail goes to, sealed, and is taken out at its end;
-- `key_id` is its key, so that an erasure takes the row. `about` is what the mail is about: an order, an account or a registration.
CREATE TABLE mails (
    mail_id     uuid        PRIMARY KEY,
    subject_id  uuid        NOT NULL,
    template    varchar(20) NOT NULL CHECK (template IN ('confirm', 'have_account', 'email_changed', 'delivery_changed')),
    about       uuid        NOT NULL,
    language    varchar(2)  NOT NULL CHECK (language IN ('en', 'de', 'fr', 'es')),
    contact     bytea,
    key_id      uuid        NOT NULL,
    state       varchar(10) NOT NULL DEFAULT 'recorded' CHECK (state IN ('recorded', 'sent', 'withheld', 'blocked')),
    reason      varchar(40),
    tries       integer     NOT NULL DEFAULT 0,
    recorded_at timestamptz NOT NULL,
    next_try_at timestamptz NOT NULL,
    ended_at    timestamptz
);
CREATE INDEX mails_due ON mails (next_try_at) WHERE state = 'recorded';
CREATE INDEX mails_of_subject ON mails (subject_id);
CREATE INDEX mails_ended ON mails (ended_at) WHERE state <> 'recorded';
