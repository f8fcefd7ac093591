package query

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/export"
	"github.com/lethe-audit/lethe/internal/policy"
)

// noticeOf says for a person what the policy promises.
func noticeOf(p *policy.Policy, topicAge, deadLetterAge time.Duration) export.Notice {
	n := export.Notice{
		Policy: p.Name, Version: p.Version,
		Recipients: spaced(p.Recipients), Regions: regions(p.Regions), Safeguards: spaced(p.Safeguards),
		Complaint: p.Complaint, Rights: spaced(p.Rights),
		Stores: []export.Store{
			{Name: "source topics", Why: "The queue from which events are read, as they were published. It is no archive and cannot be searched.", GreatestAge: age(topicAge)},
			{Name: "dead letters", Why: "Events that could not be stored, without their content where they could not be read.", GreatestAge: age(deadLetterAge)},
			{Name: "backups", Why: "Copies for emergencies. They are not searched, and data leaves them with their age.", GreatestAge: period(p.BackupAge)},
		},
	}
	if !p.Dated.IsZero() {
		n.Dated = p.Dated.Format("2 January 2006")
	}
	if p.Respond != (policy.Period{}) {
		n.Respond = inWords(p.Respond.String())
	}
	for _, c := range p.Stored() {
		if event.Original(c.Key) != c.Key {
			continue // copies are promised what their originals are
		}
		name := strings.ReplaceAll(c.Class, "_", " ")
		switch c.Tier {
		case "":
		case "without":
			name += " (where there is nothing to wait for or to choose by)"
		default:
			name += " (" + c.Tier + ")"
		}
		from := c.From
		if from == "event" {
			from = "the event"
		}
		n.Classes = append(n.Classes, export.Class{Name: name, Keep: inWords(c.Keep), From: from, Section: c.Section, Purposes: spaced(p.Purposes[c.Class])})
	}
	return n
}

var periods = regexp.MustCompile(`\b(\d+)([dmy])\b`)

// inWords writes the periods in a text out: "2y" is "2 years".
func inWords(text string) string {
	return periods.ReplaceAllStringFunc(text, func(p string) string {
		n, unit := p[:len(p)-1], map[byte]string{'d': " day", 'm': " month", 'y': " year"}[p[len(p)-1]]
		if n != "1" {
			unit += "s"
		}
		return n + unit
	})
}

// spaced turns names into words.
func spaced(names []string) []string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = strings.ReplaceAll(n, "_", " ")
	}
	return words
}

func regions(r policy.Regions) []string {
	var words []string
	words = append(words, r.Only...)
	for _, n := range r.Never {
		words = append(words, "not "+n)
	}
	if r.PerTenant {
		words = append(words, "the region that the customer chose")
	}
	return words
}

const unknownAge = "unknown"

func age(d time.Duration) string {
	if d <= 0 {
		return unknownAge
	}
	if days := d / (24 * time.Hour); d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", days)
	}
	return d.String()
}

func period(p policy.Period) string {
	if p == (policy.Period{}) {
		return unknownAge
	}
	return p.String()
}
