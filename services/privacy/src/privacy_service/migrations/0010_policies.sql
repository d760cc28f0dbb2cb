-- Every policy under which a saga began, whole: it goes by that one, whatever is in force by then.
CREATE TABLE rights_policies (
    policy   varchar(64) PRIMARY KEY, -- SHA-256 of the document
    version  text        NOT NULL,
    document text        NOT NULL
);
-- '': begun before policies were kept; it goes by the one in force.
ALTER TABLE rights_subjects ADD COLUMN policy varchar(64) NOT NULL DEFAULT '';
