-- What moves an expiry after a row was stored, and the account of what was moved.
--
-- anchors: one row per audit event that begins, ends or cuts short a period. The
-- subject is what a row can hang on: user:…, organization:…, workspace:…,
-- project:…, deployment:…. forget_at is when no topic and no backup can bring
-- back a row that it speaks of.
CREATE TABLE IF NOT EXISTS anchors
(
    subject String,
    action LowCardinality(String),
    occurred_at DateTime64(3, 'UTC'),
    plan_tier LowCardinality(String),
    source LowCardinality(String),
    id String,
    received_at DateTime64(3, 'UTC'),
    forget_at DateTime('UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (subject, action, occurred_at, source, id)
TTL forget_at
SETTINGS auto_statistics_types = '',
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Who asked to be erased: keyed hashes of the identifiers, nothing that names a
-- person. What occurred up to until is erased. The newest row of an erasure counts.
CREATE TABLE IF NOT EXISTS erasures
(
    erasure String,
    scope LowCardinality(String),
    state LowCardinality(String),
    hashes Array(String),
    until DateTime64(3, 'UTC'),
    deadline DateTime('UTC'),
    everywhere DateTime('UTC'),
    erased_rows UInt64,
    kept_rows UInt64,
    kept_reason String,
    policy_version LowCardinality(String),
    updated_at DateTime64(3, 'UTC'),
    forget_at DateTime('UTC')
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY erasure
TTL forget_at
SETTINGS auto_statistics_types = '',
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- The identifiers of an erasure as rows carry them, by which its rows are found.
-- They go with the deadline, the hashes stay longer.
CREATE TABLE IF NOT EXISTS erasure_keys
(
    erasure String,
    subject String,
    forget_at DateTime('UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (erasure, subject)
TTL forget_at
SETTINGS auto_statistics_types = '',
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- What must not go, whatever a period or an erasure says. released_at is 0 while
-- it holds. hashes are keyed, of all subjects: a hold that was learned again from
-- Kafka knows only those subjects that rows have. The newest row of a hold counts.
CREATE TABLE IF NOT EXISTS holds
(
    hold String,
    subjects Array(String),
    hashes Array(String),
    reason String,
    placed_at DateTime64(3, 'UTC'),
    released_at DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC'),
    forget_at DateTime('UTC')
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY hold
TTL forget_at
SETTINGS auto_statistics_types = '',
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Each run that moves expiries takes a number before it reads a fact, and a
-- run that a later one has overtaken moves nothing.
CREATE TABLE IF NOT EXISTS retention_sweeps
(
    sweep UInt64,
    full Bool,
    state LowCardinality(String),
    moved_rows UInt64,
    began_at DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY sweep
SETTINGS auto_statistics_types = '',
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Every delivery whose expiry was moved, written before the rows are changed:
-- the row of the highest sweep says where it is. `ingest verify` takes these out
-- of the ledger's cells. digest is the one of the ledger, day that of retained_from,
-- received_at the row's: it tells which life of the topic the offset is of. A
-- partition is 256 sweeps: a move asks for the entries of one, once for each part.
CREATE TABLE IF NOT EXISTS retention_moves
(
    table LowCardinality(String),
    retention_class LowCardinality(String),
    bucket Date,
    day Date,
    src_topic LowCardinality(String),
    src_partition Int32,
    src_offset Int64 CODEC(Delta(8), ZSTD(1)),
    digest UInt64 CODEC(NONE),
    received_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    from_override UInt32,
    to_override UInt32,
    cause LowCardinality(String),
    sweep UInt64,
    planned_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY intDiv(sweep, 16777216)
ORDER BY (table, retention_class, bucket, src_topic, src_partition, src_offset, digest, sweep)
SETTINGS auto_statistics_types = '',
    fsync_after_insert = 1,
    fsync_part_directory = 1;
