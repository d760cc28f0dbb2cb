-- A record in quarantine is known by its place and its hash: another one may come to the place when a topic is made anew.
-- NULL: from before hashes were kept.
ALTER TABLE kit.quarantine ADD COLUMN hash uuid;
ALTER TABLE kit.quarantine DROP CONSTRAINT quarantine_reader_topic_partition_position_key;
ALTER TABLE kit.quarantine ADD CONSTRAINT quarantine_record UNIQUE (reader, topic, partition, position, hash);
