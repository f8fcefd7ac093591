// Package service wires the rooms into the two services, each in one straight
// line. cmd/ingest and cmd/query run one of them; cmd/standalone runs both in
// one process. It decides nothing that a room could decide.
package service
