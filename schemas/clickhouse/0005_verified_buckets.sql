-- What `ingest verify` has found right: a bucket whose parts and ledger cells
-- are still the ones named here need not be read again. The newest row of a bucket
-- counts; one without parts takes an earlier one back. A stamp ends after 90
-- days, so that the table stays as small as the number of buckets, and everything
-- is read again at least that often.
CREATE TABLE IF NOT EXISTS verified_buckets
(
    table LowCardinality(String),
    retention_class LowCardinality(String),
    bucket Date,
    parts String,
    ledger UInt64,
    verified_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(verified_at)
ORDER BY (table, retention_class, bucket)
TTL toDateTime(verified_at) + INTERVAL 90 DAY
SETTINGS auto_statistics_types = '',
    fsync_after_insert = 1,
    fsync_part_directory = 1;
