-- Every stored retention class that any policy file has ever produced, with its
-- period. The promise is part of the key, so a key never changes its period, and
-- the expiry of old rows stays computable when the policy file has moved on.
CREATE TABLE IF NOT EXISTS retention_classes
(
    retention_class String,
    months UInt32,
    days UInt32,
    sentinel Bool,
    policy_version String,
    registered_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY retention_class
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
