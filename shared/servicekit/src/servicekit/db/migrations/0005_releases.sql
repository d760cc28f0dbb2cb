-- Keys under which this system has deleted all that it held: it stores nothing under them again. A row goes when the list of
-- revocations names its key.
CREATE TABLE kit.released_keys (
    key_id     uuid PRIMARY KEY,
    subject_id uuid NOT NULL
);
