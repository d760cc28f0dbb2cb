CREATE TABLE reviews (
    review_id uuid PRIMARY KEY,
    author_id uuid NOT NULL,
    stars smallint NOT NULL CHECK (stars BETWEEN 1 AND 5),
    reviewer bytea NOT NULL
);
