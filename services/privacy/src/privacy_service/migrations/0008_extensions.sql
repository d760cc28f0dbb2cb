-- Why a request's term was extended; `due_at` is the new end. Once only (GDPR article 12(3)).
CREATE TYPE request_extension AS ENUM ('complexity', 'number_of_requests');
ALTER TABLE rights_requests ADD COLUMN extension request_extension;
