// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v4"
)

// Key describes a key of the policy file, for help texts and manuals.
type Key struct {
	Name    string
	Values  string // what may stand there: "drop or accept"
	Default string // what counts where the key is left out
	Meaning string
	Note    string // what else there is to know, or ""
	Keys    []Key  // of a section: the keys inside it
}

// Keys returns every key of the policy file, in the order of the file.
func Keys() []Key {
	completeKeys()
	out := make([]Key, len(keys))
	for i, k := range keys {
		out[i] = k.Key
		if s, ok := k.kind.(section); ok {
			for _, inner := range s.keys {
				out[i].Keys = append(out[i].Keys, inner.Key)
			}
		}
	}
	return out
}

// key is a key of the policy file, and all that the package knows of it.
type key struct {
	Key
	label  string // what a Change calls it, if not by its name
	always bool   // written even where it has the default
	apart  bool   // no part of Settings, as it is shown in a table of its own
	rank   int    // what is higher is read first, wherever it stands
	kind
	sample []sampleLine // entries of a list in the example file
}

// kind is what a key holds: one value, a list, or a section of keys.
type kind interface {
	// read sets in p what node v says, which is the value of the key at.
	read(d *document, p *Policy, at, v *yaml.Node)
	// diff returns the changes from old to new.
	diff(label string, old, new *Policy) []Change
	// write appends the key with what p says to the text of a file.
	write(b *strings.Builder, indent, name string, p *Policy)
	// edit takes a step from what d says, which is have, towards want.
	edit(d *document, path []string, have, want *Policy) ([]piece, error)
	// view returns what p says: a string, a list of strings, or Settings.
	view(p *Policy) any
}

// keys lists the keys in the order of the file. A key that is not here does
// not exist, and nothing else in the package lists them.
var keys = []*key{
	{
		Key: Key{Name: "interfaces", Values: "a list such as [eth0, wg*]", Default: "the one of the default route",
			Meaning: "the interfaces to filter", Note: "* stands for any characters, also in the names of interfaces that appear later"},
		label: "interface", always: true, apart: true,
		kind: list[string, string]{
			field: func(p *Policy) *[]string { return &p.Interfaces },
			parse: func(_ *document, name string) (string, error) { return parseInterface(name) },
			id:    func(name string) string { return name }, format: quoteName,
			quote: func(name string, _ bool) string { return quoteName(name) },
			noun:  "interface", example: "[eth0]", oneLine: true,
		},
		sample: []sampleLine{{"[eth0]", ""}},
	},
	{
		Key:    Key{Name: "input", Meaning: "new packets to this host that no rule opens", Note: "reject tells the sender; " + perInterfaceNote},
		always: true,
		kind: oneOfPerInterface(verdictWords, func(p *Policy) *Verdict { return &p.Input },
			func(p *Policy) *map[string]Verdict { return &p.InputOn }),
	},
	{
		Key: Key{Name: "forward", Values: "drop, established, accept, or " + forwardExample, Meaning: "packets routed through this host",
			Note: "established lets only replies in; rules let through what they name, and replies to it"},
		always: true,
		kind:   newForward(),
	},
	{
		Key: Key{Name: "icmp", Values: "accept, drop, or a list such as [echo-request]", Meaning: "ICMP that answers nothing",
			Note: "what IPv6 and path MTU discovery need always passes; per interface as input"},
		always: true,
		kind: perInterface[ICMP]{
			field: func(p *Policy) *ICMP { return &p.ICMP }, on: func(p *Policy) *map[string]ICMP { return &p.ICMPOn },
			parse: (*document).icmp, format: ICMP.String, same: ICMP.Equal, names: ICMP.names,
		},
	},
	{
		Key: Key{Name: "lists", Values: "names and networks, such as " + listExample, Default: "{}",
			Meaning: "networks that rules name, as @office", Note: "partners: {file: partners.txt} takes them from a file, one a line, and {url: \"https://…\", every: 12h} from elsewhere"},
		apart: true, rank: 1, // rules name them
		kind: lists{},
	},
	{
		Key: Key{Name: "block", Values: "a list such as [203.0.113.9, \"@bad\"]", Default: "[]",
			Meaning: "who gets nothing in, live connections among it", Note: "addresses, networks and lists, before all that is open"},
		kind:   sourcesOf(func(p *Policy) *[]Source { return &p.Block }),
		sample: []sampleLine{{"[]", ""}},
	},
	{
		Key: Key{Name: "trust", Values: "a list such as [203.0.113.0/24, \"@office\"]", Default: "[]",
			Meaning: "who is never blocked, banned or limited", Note: "what is open to them is for open to say"},
		kind:   sourcesOf(func(p *Policy) *[]Source { return &p.Trust }),
		sample: []sampleLine{{"[]", ""}},
	},
	{
		Key: Key{Name: "open", Values: "a list such as [http, 22/tcp from 203.0.113.0/24]", Default: "[]",
			Meaning: "what is let in"},
		always: true, apart: true,
		kind: rules(false, "[http, 22/tcp]"),
		sample: []sampleLine{
			{"- ssh", "first of all: this is how you get in"},
			{"- http", "a service of " + ServicesFile},
			{"- 443/tcp", "a port: /tcp, /udp, /sctp or /udplite"},
			{"# - 60000-61000/udp", "a range"},
			{"# - 5432/tcp from 203.0.113.0/24,2001:db8::/32", ""},
			{"# - 8080,8443/tcp on eth1 from @office", "on one interface, from a list"},
			{"# - gre from 198.51.100.9", "a protocol without ports"},
		},
	},
	{
		Key:    Key{Name: "invalid", Meaning: "broken packets, and those of no flow; log keeps them for \"portcullis log\"", Note: "per interface as input"},
		always: true,
		kind: oneOfPerInterface(invalidWords, func(p *Policy) *InvalidPolicy { return &p.Invalid },
			func(p *Policy) *map[string]InvalidPolicy { return &p.InvalidOn }),
	},
	{
		Key: Key{Name: "enforce", Meaning: "whether anything is dropped",
			Note: "false only watches: what would be dropped is counted and shown, and passes, also from who is blocked or banned"},
		kind: enforceKind,
	},
	{
		Key: Key{Name: "log", Values: "none, drops, invalid, or a list such as [closed port, banned]",
			Meaning: "packets that \"portcullis run\" writes to the journal, by the reason under which they count", Note: "so many a second of each reason, the others are counted"},
		kind: logKind,
	},
	{
		Key: Key{Name: "flows", Values: "keys and values", Meaning: "the flow table"},
		kind: section{"max: 262144", []*key{{
			Key: Key{Name: "max", Values: fmt.Sprintf("%d to %d", MinMaxFlows, MaxMaxFlows),
				Meaning: "the most flows that the table keeps", Note: "a new value takes effect after \"portcullis down\" and \"portcullis up\""},
			label: "flows max",
			kind:  number("max: 262144", setMaxFlows, func(p *Policy) string { return strconv.Itoa(p.FlowLimit()) }),
		}}},
	},
	{
		Key:  Key{Name: "timeouts", Values: "keys and values", Meaning: "how long an idle flow is kept, by its state"},
		kind: section{"udp: 30s", timeoutKeys()},
	},
}

// rules is the kind of a key with rules, about what is routed or about what is for this host.
func rules(forward bool, example string) list[Rule, string] {
	return list[Rule, string]{
		field: func(p *Policy) *[]Rule { return &p.Open },
		holds: func(r Rule) bool { return r.Forward == forward },
		parse: func(d *document, text string) (Rule, error) {
			names := d.names
			names.Forward = forward
			return names.ParseRule(text)
		},
		spell: func(r Rule, p *Policy) Rule { return r.named(p.Lists) },
		id:    Rule.key, format: Rule.String,
		quote: func(r Rule, inFlow bool) string { return quoteRule(r.String(), inFlow) },
		noun:  "rule", example: example,
	}
}

const perInterfaceNote = "per interface as {default: drop, eth1: accept, \"wg*\": reject}"

// timeoutKeys makes a key of each timeout.
func timeoutKeys() []*key {
	var out []*key
	for _, t := range Timeouts {
		out = append(out, &key{
			Key:   Key{Name: t.Name, Values: timeoutRange, Meaning: t.Meaning},
			label: "timeout " + t.Name,
			kind:  number("udp: 30s", setTimeout(t.Name), func(p *Policy) string { return formatTimeout(p.Timeout(t.Name)) }),
		})
	}
	return out
}

func setTimeout(name string) func(*Policy, string) error {
	return func(p *Policy, text string) error {
		d, err := ParseDuration(text)
		if err != nil {
			return err
		}
		if p.Timeouts == nil {
			p.Timeouts = make(map[string]time.Duration)
		}
		p.Timeouts[name] = d
		return nil
	}
}

func setMaxFlows(p *Policy, text string) error {
	n, err := strconv.ParseUint(text, 10, 32)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("flows max %s is no number: write %d to %d", quote(text), MinMaxFlows, MaxMaxFlows)
	case err != nil || n < MinMaxFlows || n > MaxMaxFlows:
		return fmt.Errorf("flows max %s is out of range: write %d to %d", quote(text), MinMaxFlows, MaxMaxFlows)
	}
	p.MaxFlows = int(n)
	return nil
}

func init() { label(keys) }

func label(list []*key) {
	for _, k := range list {
		if k.label == "" {
			k.label = k.Name
		}
		if s, ok := k.kind.(section); ok {
			label(s.keys)
		}
	}
}

// completeKeys adds what is told of the keys, and most commands do without: a value has its default, and a word its words,
// from the code that reads it.
var completeKeys = sync.OnceFunc(func() { complete(keys) })

func complete(list []*key) {
	for _, k := range list {
		switch kind := k.kind.(type) {
		case singular:
			k.Default = kind.text(Default())
			if k.Values == "" {
				k.Values = joinWords(kind.choices(), "or")
			}
		case section:
			complete(kind.keys)
		}
	}
}

// singular is a kind with one value, or one of a few words.
type singular interface {
	text(p *Policy) string // as the file has it
	choices() []string     // nil where there are more than a few
}

// isDefault reports whether p says about the key what an empty policy does.
func (k *key) isDefault(p *Policy) bool {
	if own, ok := k.kind.(interface{ isDefault(*Policy) bool }); ok {
		return own.isDefault(p)
	}
	return len(k.diff(k.label, Default(), p)) == 0
}

func keyNames(list []*key) []string {
	names := make([]string, len(list))
	for i, k := range list {
		names[i] = k.Name
	}
	return names
}

// lookUp returns the key of that name in the list, or nil.
func lookUp(list []*key, name string) *key {
	if i := slices.IndexFunc(list, func(k *key) bool { return k.Name == name }); i >= 0 {
		return list[i]
	}
	return nil
}
