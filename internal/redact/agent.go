package redact

import (
	"strings"

	"github.com/mileusna/useragent"
)

const (
	maxAgent     = 512 // bytes of a user agent that are looked at
	maxAgentName = 40
	maxMajor     = 5 // digits
	otherAgent   = "Other"
	maxNames     = 4096 // shared strings
)

// agent is what is kept of a user agent.
type agent struct{ name, version, os string }

// agents remembers parsed user agents.
type agents struct {
	known cache[agent]
	names map[string]string // one copy of each name and version
	scrub func(string) ([]byte, bool)
}

func newAgents(scrub func(string) ([]byte, bool)) *agents {
	return &agents{known: newCache[agent](agentSets), names: make(map[string]string), scrub: scrub}
}

func (c *agents) of(s string) agent {
	if len(s) > maxAgent {
		s = s[:maxAgent]
	}
	k := c.known.text(s)
	if a := c.known.find(k); a != nil {
		return *a
	}
	a := c.parse(s)
	c.known.put(k, a)
	return a
}

// shared returns a copy of s that equal strings share.
func (c *agents) shared(s string) string {
	if known, ok := c.names[s]; ok {
		return known
	}
	s = strings.Clone(s)
	if len(c.names) < maxNames {
		c.names[s] = s
	}
	return s
}

// parse names the agent. A user agent is whatever its sender likes, so a name is
// kept only if it is short, of harmless characters and free of addresses.
func (c *agents) parse(s string) agent {
	if s == "" || s == "-" {
		return agent{}
	}
	p := useragent.Parse(s)
	a := agent{name: p.Name, version: major(p.Version), os: known(p.OS)}
	switch a.name {
	case "Trident": // Internet Explorer 11 dropped its name
		a.name = useragent.InternetExplorer
		if i := strings.Index(s, "rv:"); i >= 0 {
			a.version = major(s[i+3:])
		}
	case useragent.Opera: // Opera 10 to 12 call themselves 9.80
		if i := strings.Index(s, "Version/"); i >= 0 && a.version == "9" {
			a.version = major(s[i+len("Version/"):])
		}
	}
	if !c.harmless(a.name) || a.name == s && strings.ContainsAny(s, "/(") {
		return agent{name: otherAgent, os: a.os}
	}
	a.name, a.version = c.shared(a.name), c.shared(a.version)
	return a
}

func (c *agents) harmless(name string) bool {
	switch name {
	case "", "X11", "Gecko", "like Gecko", useragent.Mozilla:
		return false // a part of nearly every user agent, not a name
	}
	if len(name) > maxAgentName {
		return false
	}
	for i := range len(name) {
		if !isAlnum(name[i]) && strings.IndexByte(" .-_!+", name[i]) < 0 {
			return false
		}
	}
	_, found := c.scrub(name)
	return !found
}

// major returns the leading number of a version.
func major(v string) string {
	v = strings.TrimPrefix(v, "v")
	n := 0
	for n < len(v) && class[v[n]]&isDigit != 0 {
		n++
	}
	if n > maxMajor {
		return ""
	}
	return v[:n]
}

// known keeps the operating systems that the parser names itself.
func known(os string) string {
	switch os {
	case useragent.Windows, useragent.WindowsPhone, useragent.Android, useragent.MacOS, useragent.IOS, useragent.Linux,
		useragent.FreeBSD, useragent.ChromeOS, useragent.BlackBerry, useragent.Harmony:
		return os
	}
	return ""
}
