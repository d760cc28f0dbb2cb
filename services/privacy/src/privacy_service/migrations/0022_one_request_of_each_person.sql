-- The rule of one open request of each kind holds for all who open one, and for each person of a list. The opening
-- transaction checks it under locks. The column stays until no process of the older version writes it.
DROP INDEX rights_requests_own_open;
