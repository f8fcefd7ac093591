package event

import (
	"math"
	"time"
)

// Row is one event as it is stored: redacted, classified, traceable to the
// offset it came from. Only package redact makes one from an Event; store
// fills one from a query.
type Row struct {
	Kind Kind

	ID, Source, Type string
	// OccurredAt is the event's own time, ReceivedAt the ingester's clock; UTC, milliseconds.
	OccurredAt, ReceivedAt time.Time

	// Retention is the stored retention class, such as "usage@2y": the policy's
	// class and the promise that held when the row was stored.
	Retention string
	// Bucket is the first day of the partition the row belongs to, in days since 1970-01-01.
	Bucket int32
	// RetainedFrom is the instant the period counts from; UTC, whole seconds.
	RetainedFrom time.Time
	// ExpiresOverride is an expiry that was moved, seconds since 1970; 0: none,
	// ErasedOverride: the row was erased.
	ExpiresOverride uint32
	// ExpiresAt is filled by readers: the expiry as ClickHouse computes it.
	ExpiresAt     time.Time
	PolicyVersion string

	Topic     string
	Partition int32
	Offset    int64

	// SubjectKeys are all the people in the row: "user:…", "device:…",
	// "email:<key id>:<hash>", "session:<key id>:<hash>".
	SubjectKeys []string
	// Owners are the values of target.owner.id.
	Owners   []string
	TraceID  [16]byte // zero: none
	SpanID   [8]byte  // zero: none
	Metadata []Pair

	Text   [NumTexts]string    // by Text; "": absent
	Number [NumNumbers]float64 // by Num; NaN: absent
}

// ErasedOverride is the expiry of erased rows: long past, and no other row's.
const ErasedOverride = 1

// Came returns when the row was there at the latest, by two clocks: when it occurred,
// or where the publisher's clock is ahead when it was received. What is asked of all that
// there is, such as an erasure, is asked of it from then on.
func (r *Row) Came() time.Time {
	if !r.ReceivedAt.IsZero() && r.ReceivedAt.Before(r.OccurredAt) {
		return r.ReceivedAt
	}
	return r.OccurredAt
}

// Reset empties the row for reuse and keeps the slices' memory.
func (r *Row) Reset() {
	*r = Row{SubjectKeys: r.SubjectKeys[:0], Owners: r.Owners[:0], Metadata: r.Metadata[:0]}
	for i := range r.Number {
		r.Number[i] = math.NaN()
	}
}

// Text is a stored string field.
type Text uint8

// The stored string fields, named in Texts.
const (
	TAction Text = iota
	TOutcome
	TCategory
	TReason
	TMethod
	TRoute
	TPath
	TProtocolVersion
	TCountry
	TAgentName
	TAgentVersion
	TAgentOS
	TUserID
	TDeviceID
	TOnBehalfOf
	TUserEmail
	TSessionID
	TActorType
	TTargetType
	TTargetID
	TTargetName
	TOrganization
	TWorkspace
	TProject
	TDeployment
	TServiceName
	TServiceVersion
	TRegion
	TPlanTier
	TDataCategory
	TAuthProtocol
	TChangeOld
	TChangeNew

	NumTexts = int(TChangeNew) + 1
)

// Num is a stored numeric field.
type Num uint8

// The stored numeric fields, named in Numbers.
const (
	NSeverity Num = iota
	NStatus
	NDuration
	NRequestSize
	NResponseSize
	NIsMFA

	NumNumbers = int(NIsMFA) + 1
)

// Field describes a stored field: the name readers see, where it exists, what
// it tells about a person, and the attribute it is made from.
type Field struct {
	Name  string // dotted; the column is ColumnName(Name)
	Kinds KindSet
	Tag   Tag
	From  Attr
	// Dictionary says that few values repeat often: stored as LowCardinality(String).
	Dictionary bool
	// ClickHouse is the column type of a numeric field.
	ClickHouse string
}

// Column returns the field's ClickHouse column.
func (f Field) Column() string { return ColumnName(f.Name) }

// same is a field that carries an attribute under its own name.
func same(a Attr, dictionary bool) Field {
	d := Attributes[a]
	return Field{Name: d.Name, Kinds: d.Kinds, Tag: d.Tag, From: a, Dictionary: dictionary}
}

// made is a field that redaction makes from an attribute.
func made(name string, a Attr, tag Tag, dictionary bool) Field {
	return Field{Name: name, Kinds: Attributes[a].Kinds, Tag: tag, From: a, Dictionary: dictionary}
}

func number(a Attr, clickhouse string) Field {
	f := same(a, false)
	f.ClickHouse = clickhouse
	return f
}

// Texts describes the stored string fields.
var Texts = [NumTexts]Field{
	TAction:          same(EventAction, true),
	TOutcome:         same(EventOutcome, true),
	TCategory:        same(EventCategory, true),
	TReason:          same(EventReason, false),
	TMethod:          same(HTTPMethod, true),
	TRoute:           same(HTTPRoute, true),
	TPath:            same(URLPath, false),
	TProtocolVersion: same(ProtocolVersion, true),
	TCountry:         made("client.country", ClientAddress, Quasi, true),
	TAgentName:       made("user_agent.name", UserAgent, Quasi, true),
	TAgentVersion:    made("user_agent.version", UserAgent, Quasi, true),
	TAgentOS:         made("user_agent.os", UserAgent, Quasi, true),
	TUserID:          same(UserID, false),
	TDeviceID:        same(DeviceID, false),
	TOnBehalfOf:      same(OnBehalfOf, false),
	TUserEmail:       made("user.email", UserEmail, Pseudonym, false),
	TSessionID:       made("session.id", SessionID, Pseudonym, false),
	TActorType:       same(ActorType, true),
	TTargetType:      same(TargetType, true),
	TTargetID:        same(TargetID, false),
	TTargetName:      same(TargetName, false),
	TOrganization:    same(OrganizationID, true),
	TWorkspace:       same(WorkspaceID, true),
	TProject:         same(ProjectID, true),
	TDeployment:      same(DeploymentID, true),
	TServiceName:     same(ServiceName, true),
	TServiceVersion:  same(ServiceVersion, true),
	TRegion:          same(Region, true),
	TPlanTier:        same(PlanTier, true),
	TDataCategory:    same(DataCategory, true),
	TAuthProtocol:    same(AuthProtocol, true),
	TChangeOld:       same(ChangeOld, false),
	TChangeNew:       same(ChangeNew, false),
}

// Numbers describes the stored numeric fields. A field that an event need not
// have is Nullable: an absent duration is not a duration of zero.
var Numbers = [NumNumbers]Field{
	NSeverity:     number(EventSeverity, "Nullable(UInt8)"),
	NStatus:       number(HTTPStatus, "UInt16"),
	NDuration:     number(HTTPDuration, "Nullable(Float64)"),
	NRequestSize:  number(HTTPRequestSize, "Nullable(UInt64)"),
	NResponseSize: number(HTTPResponseSize, "Nullable(UInt64)"),
	NIsMFA:        number(AuthIsMFA, "Nullable(Bool)"),
}
