// Package schemas holds the files that other programs agree on with Lethe: the
// ClickHouse tables, the events and the policies. It holds no code.
package schemas

import "embed"

// ClickHouse holds the migrations under clickhouse/, named NNNN_name.sql and
// applied in that order. A file that has been released MUST NOT change.
//
//go:embed clickhouse/*.sql
var ClickHouse embed.FS

// Events holds the JSON Schemas of the three kinds of event and their envelope.
//
//go:embed events/*.schema.json
var Events embed.FS

// Policies holds the example policy files, policies/<name>.yaml.
//
//go:embed policies/*.yaml
var Policies embed.FS
