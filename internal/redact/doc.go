// Package redact turns an Event into a Row, and is the only way to get one: what
// it lets through is stored for years, so it fails closed on the value and never
// on the event.
//
// It decides nothing about retention, looks up no country of its own and does
// not decode: package policy, the Countries given to New and package codec do.
//
// # What becomes of every string
//
//	value                          becomes
//	client.address                 client.country; see Hops below
//	user_agent.original            user_agent.name, .version (major), .os; bounded, a closed set of characters
//	user.email                     "<key id>:<hash>", subject key "email:<key id>:<hash>"
//	session.id                     "<key id>:<hash>", subject key "session:<key id>:<hash>"
//	user.id that is an e-mail      user.email; beside a user.email it stays user.id as "email:<key id>:<hash>"
//	device.id, actor.on_behalf_of.id, target.owner.id, target.id that are an e-mail
//	                               "email:<key id>:<hash>", which is the subject key too
//	any of these ids with an address or an e-mail inside
//	                               scrubbed. It names nobody any more, so it is no subject key; the e-mails
//	                               that were inside are, so that their owners still find the event
//	id, where id or source hold an address or an e-mail
//	                               "id:<key id>:<hash of source and id>": the identity stays unique
//	source, type                   scrubbed
//	http.route, url.path           cut at the first ? or #, ";jsessionid=" removed, scrubbed
//	trace_id, span_id              bytes; what is not hexadecimal is gone
//	metadata                       keys and values scrubbed; keys that became equal are numbered
//	every other string, whatever its tag
//	                               scrubbed: a publisher can put an address anywhere
//
// # Scrubbing
//
// An IPv4 or IPv6 literal becomes "[ip:DE]" and takes its port, brackets and zone
// with it; an e-mail becomes "[email]". Both are also found percent-encoded, once
// or repeatedly. In doubt it is an address. Not addresses are dotted quads with
// a letter attached (v1.2.3.4) or a fifth number (1.2.3.4.5, 6.2.3.3.c.1), and
// octets over 255. Four numbers joined by hyphens are an address next to a
// letter, as in ec2-1-2-3-4 or 1-2-3-4.example.net, and a plain number otherwise.
// Text that still changes after maxRounds passes is dropped as a whole.
//
// # Hops
//
// A chain, as in X-Forwarded-For or Forwarded, counts for its first (left-most)
// public address, which is what the client's proxy said of the client. A chain
// without one, or with anything that is neither an address nor "unknown", is ZZ.
//
// # Memory
//
// A Redactor belongs to one goroutine. Its caches have a fixed size. The strings
// of a row share memory with the event and with blocks that the redactor never
// writes twice.
package redact
