-- What operators decide about records in quarantine is evidence, too.
ALTER TYPE leaf_kind ADD VALUE 'quarantine';
