-- Each class of an account can be erased alone; the row goes with the last of them. What a guest never has stays so.
ALTER TABLE accounts ALTER COLUMN contact DROP NOT NULL;
ALTER TABLE accounts DROP CONSTRAINT accounts_check;
ALTER TABLE accounts DROP CONSTRAINT accounts_check1;
ALTER TABLE accounts DROP CONSTRAINT accounts_check2;
ALTER TABLE accounts ADD CONSTRAINT guest_has_contact_only
    CHECK (NOT guest OR num_nonnulls(email_digest, identity, credentials) = 0);
