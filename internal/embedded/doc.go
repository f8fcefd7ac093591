// Package embedded is where Kafka and ClickHouse live when no servers are at
// hand: for trying Lethe out, for its tests, for a laptop. It is for one
// machine and never for production.
//
// [Engine] is the ClickHouse engine as a shared library (libchdb) in this
// process, [ClickHouse] a loopback door before it that speaks ClickHouse's HTTP
// protocol, and [Kafka] is franz-go's kfake on a data directory.
//
//	clickhouse-go, curl → ClickHouse (HTTP) → Engine (libchdb) → data directory
//	kafka-go, any client → Kafka (kfake) → data directory
//
// The package does not know what is stored: no table, topic or event of Lethe
// appears here, and nothing outside the standalone command and tests may import
// it.
//
// # How the door differs from a ClickHouse server
//
// Statements are the engine's: nothing is emulated, and SQL is read only to find
// where the data of an INSERT begins and which format an answer has.
//
//   - Every request runs on a connection of its own, so SET, USE and temporary
//     tables end with their request. session_id, external tables and roles are
//     refused with code 48 (NOT_IMPLEMENTED).
//   - Native answers are always written at revision 0; client_protocol_version is
//     read only in clickhouse-go's hello query, which is told so.
//   - INSERT … SELECT … FROM input() is not supported; its data has no way in.
//   - query_id is echoed, but system.processes shows an id of the engine's own.
//     KILL QUERY WHERE Settings['log_comment'] LIKE '%id%' finds the statement.
//   - Formats whose text has a beginning and an end (JSON, CSVWithNames, Pretty
//     and the like) are held in memory as a whole; Native, RowBinary, TSV, CSV
//     and JSONEachRow are streamed.
//   - There is one user, no quota, no row policy and no query log.
//
// # How kfake differs from Apache Kafka
//
// What follows is why tests of fencing, leaders, timestamps, retention,
// transactions and other clients run on Apache Kafka as well (kafkatest).
//
//   - One broker, no replicas: no leader moves, no coordinator is lost, and a
//     batch is acknowledged by one disk. It is written and synced before it is
//     answered, as a group's committed offsets are; Apache Kafka answers when the
//     replicas in sync have it in memory.
//   - Records carry the time their batch came with: a topic's
//     message.timestamp.type is accepted and not enforced.
//   - Batches are kept as they came: a topic's compression.type is accepted and
//     nothing is compressed anew.
//   - The default retention of seven days is not applied. A topic's own retention.ms
//     and retention.bytes are, once an hour at best, by the times that the records
//     came with; segment.ms is accepted and nothing more.
//   - A damaged batch is cut off, with all that follows in its segment, when kfake
//     starts. Apache Kafka does so after a kill; otherwise it gives the batch to
//     its readers.
//   - A group is ready at once: there is no topic of offsets to wait for.
//   - Topics are not created by asking for them.
package embedded
