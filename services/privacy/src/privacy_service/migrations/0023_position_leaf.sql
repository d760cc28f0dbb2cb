-- What operators decide about the positions of readers is evidence, too.
ALTER TYPE leaf_kind ADD VALUE 'position';
