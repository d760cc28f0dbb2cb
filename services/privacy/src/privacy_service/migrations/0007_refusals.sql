-- A rectification may end with a refusal of the system whose data it is.
ALTER TYPE request_reason ADD VALUE 'email_taken';
