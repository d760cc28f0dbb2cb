-- Accounts and what belongs to them. Everything personal is a sealed token (bytea); see holdings.py.
-- Tables with many rows a person are partitioned by the person, so that they can move to a sharded Postgres unchanged.

-- One row a person; its lock puts the person's events in order. A guest has neither identity nor credentials.
-- email_digest: keyed digest of the sign-in address, under the vault's index key (docs/protocols.md#keys).
CREATE TABLE accounts (
    subject_id      uuid        PRIMARY KEY,
    guest           boolean     NOT NULL,
    email_digest    bytea       UNIQUE CHECK (octet_length(email_digest) = 32),
    identity        bytea,
    identity_number integer     NOT NULL DEFAULT 1,
    contact         bytea       NOT NULL,
    contact_number  integer     NOT NULL DEFAULT 1,
    credentials     bytea,
    registered_at   timestamptz NOT NULL,
    CHECK (guest = (email_digest IS NULL)),
    CHECK (guest = (identity IS NULL)),
    CHECK (guest = (credentials IS NULL))
);

CREATE TABLE addresses (
    subject_id uuid        NOT NULL,
    address_id uuid        NOT NULL,
    number     integer     NOT NULL DEFAULT 1,
    address    bytea       NOT NULL,
    added_at   timestamptz NOT NULL,
    PRIMARY KEY (subject_id, address_id)
) PARTITION BY HASH (subject_id);
CREATE TABLE addresses_0 PARTITION OF addresses FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE addresses_1 PARTITION OF addresses FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE addresses_2 PARTITION OF addresses FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE addresses_3 PARTITION OF addresses FOR VALUES WITH (MODULUS 4, REMAINDER 3);

CREATE TABLE favourites (
    subject_id   uuid        NOT NULL,
    favourite_id uuid        NOT NULL,
    favourite    bytea       NOT NULL,
    added_at     timestamptz NOT NULL,
    PRIMARY KEY (subject_id, favourite_id)
) PARTITION BY HASH (subject_id);
CREATE TABLE favourites_0 PARTITION OF favourites FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE favourites_1 PARTITION OF favourites FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE favourites_2 PARTITION OF favourites FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE favourites_3 PARTITION OF favourites FOR VALUES WITH (MODULUS 4, REMAINDER 3);

CREATE TABLE browsing (
    subject_id  uuid        NOT NULL,
    browsing_id uuid        NOT NULL,
    month_id    uuid        NOT NULL,
    kind        varchar(20) NOT NULL CHECK (kind IN ('page_viewed', 'product_viewed', 'searched')),
    seconds     integer     NOT NULL,
    browsing    bytea       NOT NULL,
    at          timestamptz NOT NULL,
    PRIMARY KEY (subject_id, browsing_id)
) PARTITION BY HASH (subject_id);
CREATE INDEX browsing_newest ON browsing (subject_id, at DESC, browsing_id DESC);
CREATE TABLE browsing_0 PARTITION OF browsing FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE browsing_1 PARTITION OF browsing FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE browsing_2 PARTITION OF browsing FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE browsing_3 PARTITION OF browsing FOR VALUES WITH (MODULUS 4, REMAINDER 3);

-- What happened to the person's orders. Nothing sealed: an order's id, a code and a time.
CREATE TABLE notices (
    subject_id uuid        NOT NULL,
    order_id   uuid        NOT NULL,
    kind       varchar(20) NOT NULL CHECK (kind IN ('order_received', 'cancelled', 'handed_over', 'delivered')),
    notice_id  uuid        NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (subject_id, order_id, kind)
) PARTITION BY HASH (subject_id);
CREATE INDEX notices_newest ON notices (subject_id, at DESC, notice_id DESC);
CREATE TABLE notices_0 PARTITION OF notices FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE notices_1 PARTITION OF notices FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE notices_2 PARTITION OF notices FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE notices_3 PARTITION OF notices FOR VALUES WITH (MODULUS 4, REMAINDER 3);
