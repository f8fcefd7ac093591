-- The account of every offset: one row per contiguous range of offsets of one
-- delivery. Two deliveries of one range stay two rows, so that they can be compared.
CREATE TABLE IF NOT EXISTS ingest_ledger
(
    cluster LowCardinality(String),
    topic LowCardinality(String),
    epoch UInt32,
    partition Int32,
    first Int64 CODEC(Delta(8), ZSTD(1)),
    last Int64 CODEC(Delta(8), ZSTD(1)),
    generation Int32,
    received_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    policy_version LowCardinality(String),
    stored UInt64,
    dead UInt64,
    expired UInt64,
    suppressed UInt64,
    lost UInt64,
    absent UInt64,
    other Nested(first Int64, last Int64, outcome LowCardinality(String)),
    cells Nested(table LowCardinality(String), retention LowCardinality(String), day Date32, rows UInt64, digest UInt64)
)
ENGINE = ReplacingMergeTree
ORDER BY (cluster, topic, epoch, partition, first, last, generation, received_at)
SETTINGS default_compression_codec = 'ZSTD(1)',
    auto_statistics_types = '',
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- How far each partition is processed; the newest row counts. A partition that
-- nobody reports for a month (its topic is gone) stops holding the horizon back.
CREATE TABLE IF NOT EXISTS ingest_progress
(
    cluster LowCardinality(String),
    topic LowCardinality(String),
    epoch UInt32,
    partition Int32,
    next Int64,
    high_watermark Int64,
    complete_until DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (cluster, topic, epoch, partition)
TTL toDateTime(updated_at) + INTERVAL 30 DAY
SETTINGS auto_statistics_types = '';

-- How many offsets of a ledger row became dead letters, and why. Counts only:
-- no payload, no identifier of a person.
CREATE TABLE IF NOT EXISTS dead_letters
(
    cluster LowCardinality(String),
    topic LowCardinality(String),
    epoch UInt32,
    partition Int32,
    first Int64,
    last Int64,
    reason LowCardinality(String),
    attribute LowCardinality(String),
    publisher LowCardinality(String),
    count UInt64,
    received_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(received_at)
ORDER BY (cluster, topic, epoch, partition, first, last, reason, attribute, publisher)
SETTINGS default_compression_codec = 'ZSTD(1)',
    auto_statistics_types = '',
    fsync_after_insert = 1,
    fsync_part_directory = 1;
