-- A registration until its e-mail address is confirmed, for a day at most. The tokens become those of the account.
CREATE TABLE registrations (
    subject_id    uuid        PRIMARY KEY,
    identity      bytea       NOT NULL,
    contact       bytea       NOT NULL,
    credentials   bytea       NOT NULL,
    language      varchar(2)  NOT NULL CHECK (language IN ('en', 'de', 'fr', 'es')),
    tries         integer     NOT NULL DEFAULT 0,
    registered_at timestamptz NOT NULL
);
CREATE INDEX registrations_oldest ON registrations (registered_at);

-- How many mails an address got on a day: keyed digests, for that day. A crash of the server may forget them.
CREATE UNLOGGED TABLE mail_counts (
    day    date     NOT NULL,
    digest bytea    NOT NULL,
    mails  smallint NOT NULL,
    PRIMARY KEY (day, digest)
);

-- Whether the vault's directory has the account. It gets it after the account is committed, so that it never has another.
ALTER TABLE accounts ADD COLUMN listed boolean NOT NULL DEFAULT true;
CREATE INDEX accounts_unlisted ON accounts (subject_id) WHERE NOT listed;
