// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Log says which packets the agent writes to the journal: a set of reasons. The zero value is none.
type Log uint32

// logReasons lists the reasons that a list may name, as the datapath counts by them: those for which packets are dropped,
// and then the kinds of invalid ones. A test of package maps holds it against those.
var logReasons = []string{
	"closed port", "source", "limit", "icmp", "protocol", "rejected", "forward", "invalid", "bad vlan", "bad ipv4",
	"bad ipv6", "bad extension", "bad transport", "tiny fragment", "blocked", "banned",
	"invalid header", "invalid length", "invalid flags", "invalid state", "invalid icmp",
}

// The sets that have a name.
const (
	LogDrops   Log = 1<<16 - 1
	LogInvalid Log = 1<<21 - 1 - LogDrops
)

var logWords = []string{"none", "drops", "invalid"}

// logOf returns the set that a word stands for.
func logOf(word string) (Log, bool) {
	i := slices.Index(logWords, word)
	return [...]Log{0, LogDrops, LogInvalid}[max(i, 0)], i >= 0
}

// LogReasons returns the reasons that the key log may name.
func LogReasons() []string { return slices.Clone(logReasons) }

// Reasons returns the reasons of the packets to be logged.
func (l Log) Reasons() (names []string) {
	for i, reason := range logReasons {
		if l>>i&1 != 0 {
			names = append(names, reason)
		}
	}
	return names
}

// String returns the value as a policy file spells it.
func (l Log) String() string {
	for _, word := range logWords {
		if set, _ := logOf(word); set == l {
			return word
		}
	}
	return "[" + strings.Join(l.Reasons(), ", ") + "]"
}

// names returns the reasons of a set that has no name, or nil.
func (l Log) names() []string {
	if strings.HasPrefix(l.String(), "[") {
		return l.Reasons()
	}
	return nil
}

// logKind is the kind of the key log.
var logKind = value{
	parse: func(d *document, p *Policy, at, v *yaml.Node) {
		switch {
		case v.Kind == yaml.SequenceNode:
			d.logList(at, v, p)
		case isNull(v):
			d.errorf(at, "no value for %s: write %s", quote(at.Value), logForms)
		case v.Kind != yaml.ScalarNode:
			d.errorf(v, "%s for %s: write %s", d.describe(v), quote(at.Value), logForms)
		default:
			d.logWord(at, v, p)
		}
	},
	format:  func(p *Policy) string { return p.Log.String() },
	entries: func(p *Policy) []string { return p.Log.names() },
}

// logForms says what the key may be.
const logForms = "none, drops, invalid, or a list of reasons such as [closed port]"

// logWord reads a word. Reasons without brackets are an error that shows them with brackets.
func (d *document) logWord(at, v *yaml.Node, p *Policy) {
	if set, ok := logOf(v.Value); ok {
		p.Log = set
		return
	}
	var reasons []string
	for text := range strings.SplitSeq(v.Value, ",") {
		reasons = append(reasons, strings.TrimSpace(text))
	}
	if !slices.ContainsFunc(reasons, func(r string) bool { return !slices.Contains(logReasons, r) }) {
		d.errorf(v, "reasons for %s are a list: write [%s]", quote(at.Value), strings.Join(reasons, ", "))
		return
	}
	help := didYouMean(v.Value, logWords, "write "+logForms)
	if near := suggest(v.Value, logReasons); len(near) > 0 && len(suggest(v.Value, logWords)) == 0 {
		help = "did you mean [" + near[0] + "]?"
	}
	d.errorf(v, "unknown value %s for %s: %s", quote(v.Value), quote(at.Value), help)
}

// logList reads a list of reasons.
func (d *document) logList(at, v *yaml.Node, p *Policy) {
	d.list(at, v, "[closed port, banned]", func(item *yaml.Node) {
		i := slices.Index(logReasons, item.Value)
		switch {
		case i < 0:
			d.errorf(item, "unknown reason %s: %s", quote(item.Value), didYouMean(item.Value, logReasons, "write one of "+strings.Join(logReasons, ", ")))
		case p.Log>>i&1 != 0:
			d.errorf(item, "duplicate reason %s: keep one", quote(item.Value))
		default:
			p.Log |= 1 << i
		}
	})
}
