-- Which migrations ran, with the checksum of the file as it was then. A file
-- that ran MUST NOT change; every statement MUST be safe to run twice, because
-- two starters may run it at the same time.
CREATE TABLE IF NOT EXISTS schema_migrations
(
    number UInt32,
    name String,
    checksum String,
    applied_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (number, name, checksum)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
