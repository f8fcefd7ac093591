-- The three tables of events, one per kind, of one shape: what every row has,
-- then the kind's own columns, named after the attributes they are made from.
--
-- The sorting key ends in the delivery (topic, partition, offset), so that merges
-- remove repeats of one delivery only. A partition is one retention class and
-- one bucket of days or months: what falls due together is dropped together.
-- The expiry (the TTL and the alias expires_at) comes from the policy and is set
-- right after the migrations; until then nothing expires.
--
-- fsync_after_insert: an offset is committed on the word that its rows are stored.
-- auto_statistics_types: statistics cost 6 to 8 percent of an insert, and no query reads them.
-- min_bytes_for_wide_part: a part below it is one file; a lookup that reads a few rows of
-- forty columns from forty fresh parts takes half the time, and an insert syncs fewer files.
-- non_replicated_deduplication_window: how many blocks a retried insert is recognised over.

CREATE TABLE IF NOT EXISTS request_events
(
    occurred_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(T64, ZSTD(1)),
    source LowCardinality(String),
    id String,
    type LowCardinality(String),
    retention_class LowCardinality(String),
    bucket Date,
    retained_from DateTime('UTC') CODEC(T64, ZSTD(1)),
    expires_override UInt32,
    expires_at DateTime('UTC') ALIAS toDateTime('2105-12-31 00:00:00', 'UTC'),
    policy_version LowCardinality(String),
    src_topic LowCardinality(String),
    src_partition Int32,
    src_offset Int64 CODEC(T64, ZSTD(1)),
    subject_keys Array(String),
    target_owner_id Array(String),
    trace_id FixedString(16) CODEC(NONE),
    span_id FixedString(8) CODEC(NONE),
    metadata Map(String, String),
    http_request_method LowCardinality(String),
    http_route LowCardinality(String),
    url_path String,
    network_protocol_version LowCardinality(String),
    client_country LowCardinality(String),
    user_agent_name LowCardinality(String),
    user_agent_version LowCardinality(String),
    user_agent_os LowCardinality(String),
    user_id String,
    device_id String,
    actor_on_behalf_of_id String,
    user_email String,
    session_id String,
    organization_id LowCardinality(String),
    workspace_id LowCardinality(String),
    project_id LowCardinality(String),
    deployment_id LowCardinality(String),
    service_name LowCardinality(String),
    service_version LowCardinality(String),
    region LowCardinality(String),
    plan_tier LowCardinality(String),
    data_category LowCardinality(String),
    http_response_status_code UInt16,
    http_server_request_duration Nullable(Float64),
    http_request_body_size Nullable(UInt64),
    http_response_body_size Nullable(UInt64),
    INDEX occurred_at_minmax occurred_at TYPE minmax GRANULARITY 1,
    INDEX subject_keys_bloom subject_keys TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY (retention_class, bucket)
PRIMARY KEY (organization_id, user_id, occurred_at)
ORDER BY (organization_id, user_id, occurred_at, source, id, src_topic, src_partition, src_offset)
SETTINGS index_granularity = 2048,
    default_compression_codec = 'ZSTD(1)',
    auto_statistics_types = '',
    min_bytes_for_wide_part = 268435456,
    non_replicated_deduplication_window = 10000,
    merge_with_ttl_timeout = 3600,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS audit_events
(
    occurred_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(T64, ZSTD(1)),
    source LowCardinality(String),
    id String,
    type LowCardinality(String),
    retention_class LowCardinality(String),
    bucket Date,
    retained_from DateTime('UTC') CODEC(T64, ZSTD(1)),
    expires_override UInt32,
    expires_at DateTime('UTC') ALIAS toDateTime('2105-12-31 00:00:00', 'UTC'),
    policy_version LowCardinality(String),
    src_topic LowCardinality(String),
    src_partition Int32,
    src_offset Int64 CODEC(T64, ZSTD(1)),
    subject_keys Array(String),
    target_owner_id Array(String),
    trace_id FixedString(16) CODEC(NONE),
    span_id FixedString(8) CODEC(NONE),
    metadata Map(String, String),
    event_action LowCardinality(String),
    event_outcome LowCardinality(String),
    event_category LowCardinality(String),
    event_reason String,
    client_country LowCardinality(String),
    user_id String,
    device_id String,
    actor_on_behalf_of_id String,
    user_email String,
    session_id String,
    actor_type LowCardinality(String),
    target_type LowCardinality(String),
    target_id String,
    target_name String,
    organization_id LowCardinality(String),
    workspace_id LowCardinality(String),
    project_id LowCardinality(String),
    deployment_id LowCardinality(String),
    service_name LowCardinality(String),
    service_version LowCardinality(String),
    region LowCardinality(String),
    plan_tier LowCardinality(String),
    data_category LowCardinality(String),
    change_old String,
    change_new String,
    event_severity Nullable(UInt8),
    INDEX occurred_at_minmax occurred_at TYPE minmax GRANULARITY 1,
    INDEX subject_keys_bloom subject_keys TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY (retention_class, bucket)
PRIMARY KEY (organization_id, user_id, occurred_at)
ORDER BY (organization_id, user_id, occurred_at, source, id, src_topic, src_partition, src_offset)
SETTINGS index_granularity = 2048,
    default_compression_codec = 'ZSTD(1)',
    auto_statistics_types = '',
    min_bytes_for_wide_part = 268435456,
    non_replicated_deduplication_window = 10000,
    merge_with_ttl_timeout = 3600,
    fsync_after_insert = 1,
    fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS security_events
(
    occurred_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(T64, ZSTD(1)),
    source LowCardinality(String),
    id String,
    type LowCardinality(String),
    retention_class LowCardinality(String),
    bucket Date,
    retained_from DateTime('UTC') CODEC(T64, ZSTD(1)),
    expires_override UInt32,
    expires_at DateTime('UTC') ALIAS toDateTime('2105-12-31 00:00:00', 'UTC'),
    policy_version LowCardinality(String),
    src_topic LowCardinality(String),
    src_partition Int32,
    src_offset Int64 CODEC(T64, ZSTD(1)),
    subject_keys Array(String),
    target_owner_id Array(String),
    trace_id FixedString(16) CODEC(NONE),
    span_id FixedString(8) CODEC(NONE),
    metadata Map(String, String),
    event_action LowCardinality(String),
    event_outcome LowCardinality(String),
    event_category LowCardinality(String),
    event_reason String,
    client_country LowCardinality(String),
    user_agent_name LowCardinality(String),
    user_agent_version LowCardinality(String),
    user_agent_os LowCardinality(String),
    user_id String,
    device_id String,
    actor_on_behalf_of_id String,
    user_email String,
    session_id String,
    actor_type LowCardinality(String),
    organization_id LowCardinality(String),
    workspace_id LowCardinality(String),
    project_id LowCardinality(String),
    deployment_id LowCardinality(String),
    service_name LowCardinality(String),
    service_version LowCardinality(String),
    region LowCardinality(String),
    plan_tier LowCardinality(String),
    data_category LowCardinality(String),
    authentication_protocol LowCardinality(String),
    event_severity Nullable(UInt8),
    authentication_is_mfa Nullable(Bool),
    INDEX occurred_at_minmax occurred_at TYPE minmax GRANULARITY 1,
    INDEX subject_keys_bloom subject_keys TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY (retention_class, bucket)
PRIMARY KEY (organization_id, user_id, occurred_at)
ORDER BY (organization_id, user_id, occurred_at, source, id, src_topic, src_partition, src_offset)
SETTINGS index_granularity = 2048,
    default_compression_codec = 'ZSTD(1)',
    auto_statistics_types = '',
    min_bytes_for_wide_part = 268435456,
    non_replicated_deduplication_window = 10000,
    merge_with_ttl_timeout = 3600,
    fsync_after_insert = 1,
    fsync_part_directory = 1;
