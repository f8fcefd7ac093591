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
	cachedAgents = 8192 // per generation; twice as many at most
)

// agent is what is kept of a user agent.
type agent struct{ name, version, os string }

// agents remembers parsed user agents in two generations: when the young one is
// full it becomes the old one and the old one is forgotten, so that agents that
// never repeat push out only each other.
type agents struct {
	young, old map[string]agent
	scrub      func(string) ([]byte, bool)
}

func newAgents(scrub func(string) ([]byte, bool)) *agents {
	return &agents{young: make(map[string]agent), old: make(map[string]agent), scrub: scrub}
}

func (c *agents) of(s string) agent {
	if len(s) > maxAgent {
		s = s[:maxAgent]
	}
	if a, ok := c.young[s]; ok {
		return a
	}
	a, ok := c.old[s]
	if !ok {
		a = c.parse(s)
	}
	if len(c.young) >= cachedAgents {
		c.young, c.old = c.old, c.young
		clear(c.young)
	}
	c.young[strings.Clone(s)] = a
	return a
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
	a.name = strings.Clone(a.name)
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
	return strings.Clone(v[:n])
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
