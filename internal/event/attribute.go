package event

// Tag says what an attribute can tell about a person. It drives redaction,
// subject lookup and what an export shows of third parties.
type Tag byte

const (
	// None tells nothing about a person and is stored as published.
	None Tag = '-'
	// Direct identifies a person; it is never stored as published.
	Direct Tag = 'D'
	// Pseudonym is an id of a person, a device or a session.
	Pseudonym Tag = 'P'
	// Quasi narrows a person down but proves nothing alone.
	Quasi Tag = 'Q'
	// Content was written by a person; it is stored after the text scrubber.
	Content Tag = 'C'
)

// Type is the JSON type an attribute must have.
type Type uint8

// The JSON types of attributes.
const (
	String  Type = iota
	Integer      // a JSON number without a fraction, >= 0
	Number       // a JSON number >= 0
	Boolean      // true or false
	Strings      // a string or an array of strings
	Map          // an object of strings
)

// Attr is one known attribute of an event's data.
type Attr uint8

// The attributes, named after the OpenTelemetry and ECS names in Attributes.
const (
	EventAction Attr = iota
	EventOutcome
	EventCategory
	EventSeverity
	EventReason
	HTTPMethod
	HTTPRoute
	HTTPStatus
	HTTPDuration
	URLPath
	HTTPRequestSize
	HTTPResponseSize
	ProtocolVersion
	ClientAddress
	UserAgent
	UserID
	DeviceID
	OnBehalfOf
	TargetOwner
	UserEmail
	SessionID
	ActorType
	TargetType
	TargetID
	TargetName
	OrganizationID
	WorkspaceID
	ProjectID
	DeploymentID
	ServiceName
	ServiceVersion
	Region
	TraceID
	SpanID
	PlanTier
	DataCategory
	AuthProtocol
	AuthIsMFA
	ChangeOld
	ChangeNew
	Metadata

	NumAttrs = int(Metadata) + 1
)

// Limits of the metadata map and of target.owner.id, counted before redaction.
const (
	MaxMetadata      = 50
	MaxMetadataKey   = 40  // bytes
	MaxMetadataValue = 500 // bytes
	MaxOwners        = 2000
)

// maxText bounds, in bytes, every string attribute without a bound of its own.
const maxText = 4096

// Attribute describes one known attribute.
type Attribute struct {
	Name     string
	Type     Type
	Tag      Tag
	Kinds    KindSet  // where it is known; elsewhere it counts as unknown
	Required KindSet  // where an event without it is a dead letter
	Max      int      // bytes of a string, or the largest integer; 0: no bound
	Enum     []string // the only values allowed, where there are any
	Hex      int      // digits of a hexadecimal id; 0: any text
}

// Attributes is the allow-list: what is not here is dropped and counted. The
// JSON Schemas under schemas/events are tested to say the same.
var Attributes = [NumAttrs]Attribute{
	EventAction:      {Name: "event.action", Kinds: onAudit | onSecurity, Required: onAudit | onSecurity, Tag: None, Max: 256},
	EventOutcome:     {Name: "event.outcome", Kinds: onAudit | onSecurity, Required: onAudit | onSecurity, Tag: None, Enum: []string{"success", "failure", "unknown"}},
	EventCategory:    {Name: "event.category", Kinds: onAudit | onSecurity, Tag: None, Max: 256},
	EventSeverity:    {Name: "event.severity", Type: Integer, Kinds: onAudit | onSecurity, Tag: None, Max: 100},
	EventReason:      {Name: "event.reason", Kinds: onAudit | onSecurity, Tag: Content, Max: 256},
	HTTPMethod:       {Name: "http.request.method", Kinds: onRequest, Required: onRequest, Tag: None, Max: 64},
	HTTPRoute:        {Name: "http.route", Kinds: onRequest, Tag: None, Max: 1024},
	HTTPStatus:       {Name: "http.response.status_code", Type: Integer, Kinds: onRequest, Required: onRequest, Tag: None, Max: 999},
	HTTPDuration:     {Name: "http.server.request.duration", Type: Number, Kinds: onRequest, Tag: None},
	URLPath:          {Name: "url.path", Kinds: onRequest, Tag: Content, Max: 8192},
	HTTPRequestSize:  {Name: "http.request.body.size", Type: Integer, Kinds: onRequest, Tag: None, Max: 1 << 53},
	HTTPResponseSize: {Name: "http.response.body.size", Type: Integer, Kinds: onRequest, Tag: None, Max: 1 << 53},
	ProtocolVersion:  {Name: "network.protocol.version", Kinds: onRequest, Tag: None, Max: 64},
	ClientAddress:    {Name: "client.address", Kinds: AllKinds, Tag: Direct, Max: 2048},
	UserAgent:        {Name: "user_agent.original", Kinds: onRequest | onSecurity, Tag: Quasi, Max: 2048},
	UserID:           {Name: "user.id", Kinds: AllKinds, Tag: Pseudonym, Max: 256},
	DeviceID:         {Name: "device.id", Kinds: AllKinds, Tag: Pseudonym, Max: 256},
	OnBehalfOf:       {Name: "actor.on_behalf_of.id", Kinds: AllKinds, Tag: Pseudonym, Max: 256},
	TargetOwner:      {Name: "target.owner.id", Type: Strings, Kinds: AllKinds, Tag: Pseudonym, Max: 320}, // room for a subject key
	UserEmail:        {Name: "user.email", Kinds: AllKinds, Tag: Direct, Max: 320},
	SessionID:        {Name: "session.id", Kinds: AllKinds, Tag: Pseudonym, Max: 4096},
	ActorType:        {Name: "actor.type", Kinds: onAudit | onSecurity, Tag: None, Enum: []string{"user", "service", "api_key", "staff", "system"}},
	TargetType:       {Name: "target.type", Kinds: onAudit, Tag: None, Max: 256},
	TargetID:         {Name: "target.id", Kinds: onAudit, Tag: Pseudonym, Max: 256},
	TargetName:       {Name: "target.name", Kinds: onAudit, Tag: Content, Max: 1024},
	OrganizationID:   {Name: "organization.id", Kinds: AllKinds, Tag: Quasi, Max: 256},
	WorkspaceID:      {Name: "workspace.id", Kinds: AllKinds, Tag: Quasi, Max: 256},
	ProjectID:        {Name: "project.id", Kinds: AllKinds, Tag: Quasi, Max: 256},
	DeploymentID:     {Name: "deployment.id", Kinds: AllKinds, Tag: Quasi, Max: 256},
	ServiceName:      {Name: "service.name", Kinds: AllKinds, Tag: None, Max: 256},
	ServiceVersion:   {Name: "service.version", Kinds: AllKinds, Tag: None, Max: 256},
	Region:           {Name: "region", Kinds: AllKinds, Tag: None, Max: 256},
	TraceID:          {Name: "trace_id", Kinds: AllKinds, Tag: Quasi, Hex: 32},
	SpanID:           {Name: "span_id", Kinds: AllKinds, Tag: Quasi, Hex: 16},
	PlanTier:         {Name: "plan.tier", Kinds: AllKinds, Tag: None, Max: 64},
	DataCategory:     {Name: "data.category", Kinds: AllKinds, Tag: None, Max: 64},
	AuthProtocol:     {Name: "authentication.protocol", Kinds: onSecurity, Tag: None, Max: 64},
	AuthIsMFA:        {Name: "authentication.is_mfa", Type: Boolean, Kinds: onSecurity, Tag: None},
	ChangeOld:        {Name: "change.old", Kinds: onAudit, Tag: Content, Max: maxText},
	ChangeNew:        {Name: "change.new", Kinds: onAudit, Tag: Content, Max: maxText},
	Metadata:         {Name: "metadata", Type: Map, Kinds: AllKinds, Tag: Content},
}

var byName = func() map[string]Attr {
	m := make(map[string]Attr, NumAttrs)
	for a, d := range Attributes {
		m[d.Name] = Attr(a)
	}
	return m
}()

// Lookup returns the attribute of that name where it is known for the kind.
func Lookup(k Kind, name string) (Attr, bool) {
	a, ok := byName[name]
	if !ok || !Attributes[a].Kinds.Has(k) {
		return 0, false
	}
	return a, true
}
