// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Source is an entry of block or trust: a network, or a list of them.
type Source struct {
	Network netip.Prefix // of an entry that is no list
	List    string       // its name, or ""
	// Holds is what the list holds, or what is left of a network of which something is spared. Treat it as immutable.
	Holds *Networks
}

// Networks is what a list holds.
type Networks struct {
	Count    int
	Digest   string         // the same for the same networks, whatever their order
	Prefixes []netip.Prefix // in order, each once; nil where only their digest is known
	// Spared are networks that are to be left out of those in force, though the list holds them.
	Spared []netip.Prefix
}

// NewNetworks returns networks as block and trust have them.
func NewNetworks(prefixes []netip.Prefix) *Networks {
	if !slices.IsSortedFunc(prefixes, comparePrefix) {
		prefixes = sortPrefixes(prefixes)
	}
	return newNetworks(prefixes)
}

// newNetworks is NewNetworks of what is in order.
func newNetworks(sorted []netip.Prefix) *Networks {
	hash := sha256.New()
	buffer := make([]byte, 0, 32<<10)
	for _, p := range sorted {
		if len(buffer)+18 > cap(buffer) {
			hash.Write(buffer)
			buffer = buffer[:0]
		}
		if a := p.Addr(); a.Is4() {
			b := a.As4()
			buffer = append(append(buffer, 4, byte(p.Bits())), b[:]...)
		} else {
			b := a.As16()
			buffer = append(append(buffer, 6, byte(p.Bits())), b[:]...)
		}
	}
	hash.Write(buffer)
	return &Networks{Count: len(sorted), Digest: hex.EncodeToString(hash.Sum(nil)[:digestSize]), Prefixes: sorted}
}

const digestSize = 16 // bytes

// IsKnown reports whether the networks of the source are known, rather than their digest.
func (s Source) IsKnown() bool {
	return s.List == "" || s.Holds.Count == 0 || s.Holds.Prefixes != nil
}

// Prefixes returns the networks of the source.
func (s Source) Prefixes() []netip.Prefix {
	if s.Holds == nil {
		return []netip.Prefix{s.Network}
	}
	return s.Holds.Prefixes
}

// String returns the source as the file has it, but for quotes.
func (s Source) String() string {
	if s.List == "" {
		return PrefixText(s.Network)
	}
	return listMark + s.List
}

// key is the same for sources that hold the same by the same name.
func (s Source) key() string {
	if s.List == "" {
		return s.String()
	}
	return s.String() + " " + s.Holds.Digest
}

// Equal reports whether two sources hold the same by the same name.
func (s Source) Equal(o Source) bool { return s.key() == o.key() }

// sources is the kind of a key with networks and lists.
type sources struct{ list[Source, string] }

func sourcesOf(field func(*Policy) *[]Source) sources {
	return sources{list[Source, string]{
		field: field, parse: parseSource, id: Source.key, format: Source.String,
		quote: func(s Source, _ bool) string { return quoteSource(s.String()) },
		noun:  "entry", example: `[203.0.113.9, "@bad"]`, oneLine: true,
	}}
}

func quoteSource(text string) string {
	if strings.HasPrefix(text, listMark) {
		return `"` + text + `"`
	}
	return quoteRule(text, true)
}

var errReported = &RuleError{reported: true}

func parseSource(d *document, text string) (Source, error) {
	name, isList := strings.CutPrefix(text, listMark)
	d.blocks[name] = isList
	if !isList {
		p, bad := parsePrefix(word{text: text})
		if bad != nil {
			if slices.ContainsFunc(d.names.Lists, func(l List) bool { return l.Name == text }) {
				return Source{}, fmt.Errorf("bad address %s: write %s for the list of that name", quote(text), quoteSource(listMark+text))
			}
			return Source{}, bad
		}
		return Source{Network: p}, nil
	}
	if held := d.held[name]; held != nil {
		return Source{List: name, Holds: held}, nil
	}
	i := slices.IndexFunc(d.names.Lists, func(l List) bool { return l.Name == name })
	if i < 0 {
		_, bad := ruleParser{lists: d.names.Lists}.list(word{text: text}, name)
		return Source{}, bad
	}
	l := d.names.Lists[i]
	if l.broken {
		return Source{}, errReported
	}
	var held *Networks
	if t := d.texts[name]; t != nil {
		held = t.networks()
	} else {
		held = NewNetworks(l.Networks)
	}
	d.held[name] = held
	return Source{List: name, Holds: held}, nil
}

// diff tells of a list that holds something else as one change.
func (k sources) diff(label string, old, new *Policy) []Change {
	before := make(map[string]Source)
	for _, s := range *k.field(old) {
		before[s.String()] = s
	}
	changed := make(map[string]bool)
	var out []Change
	for _, s := range *k.field(new) {
		was, ok := before[s.String()]
		if !ok || was.key() == s.key() {
			continue
		}
		changed[s.String()] = true
		out = append(out, Change{'~', label + " " + s.String(), was.Holds.text(nil), s.Holds.text(was.Holds)})
	}
	rest := k.list.diff(label, old, new)
	return append(out, slices.DeleteFunc(rest, func(c Change) bool { return changed[cmp.Or(c.Old, c.New)] })...)
}

// text returns how many networks there are, to be told from as many others.
func (n *Networks) text(others *Networks) string {
	switch {
	case others != nil && others.Count == n.Count:
		return fmt.Sprintf("%d others", n.Count)
	case n.Count == 1:
		return "1 network"
	}
	return fmt.Sprintf("%d networks", n.Count)
}

func (k sources) edit(d *document, path []string, have, want *Policy) ([]piece, error) {
	for _, s := range k.missing(*k.field(want), *k.field(have)) {
		if s.List != "" && !slices.ContainsFunc(have.Lists, func(l List) bool { return l.Name == s.List }) {
			return nil, fmt.Errorf("the file has no list %s: write it under lists", quote(s.List))
		}
	}
	return k.list.edit(d, path, have, want)
}

func (k sources) view(p *Policy) any {
	out := []string{}
	for _, s := range *k.field(p) {
		text := s.String()
		if s.List != "" {
			text += " (" + s.Holds.text(nil) + ")"
		}
		out = append(out, text)
	}
	return out
}

// WithListsOf returns the policy with what a file's lists hold in the place of what they held: a file names them, and it
// is not for an edit of it to change them.
func (p *Policy) WithListsOf(file *Policy) *Policy {
	held := make(map[string]*Networks)
	for _, s := range slices.Concat(file.Block, file.Trust) {
		if s.List != "" {
			held[s.List] = s.Holds
		}
	}
	for _, l := range file.Lists {
		if held[l.Name] == nil && slices.ContainsFunc(slices.Concat(p.Block, p.Trust), func(s Source) bool { return s.List == l.Name }) {
			held[l.Name] = NewNetworks(l.Networks)
		}
	}
	c := p.Clone()
	for _, list := range [][]Source{c.Block, c.Trust} {
		for i, s := range list {
			if now := held[s.List]; s.List != "" && now != nil {
				list[i].Holds = now
			}
		}
	}
	return c
}

// judgeLists decides what becomes of lines that are no networks, now that it is known who names their lists. For block
// and trust they are left out, as long as they are few; for a rule each is an error, as one line less in an except may let
// somebody in.
func (d *document) judgeLists(p *Policy) {
	for i := range p.Lists {
		l := &p.Lists[i]
		text := d.texts[l.Name]
		if text == nil || len(text.Problems) == 0 {
			continue
		}
		lenient := d.blocks[l.Name] && !slices.ContainsFunc(p.Open, func(r Rule) bool { return r.names(l.Name) })
		switch {
		case lenient && text.Refused == "":
			l.Skipped = text.Problems
		case lenient && text.Bad > 1:
			d.problems = append(d.problems, &Error{File: text.Problems[0].File, Line: 1, Column: 1, Msg: fmt.Sprintf("list %s is refused: %s", quote(l.Name), text.Refused)})
			fallthrough
		default:
			d.problems = append(d.problems, text.Problems...)
		}
	}
}

// blocks reports whether block or trust names a list.
func (p *Policy) blocks(name string) bool {
	return slices.ContainsFunc(slices.Concat(p.Block, p.Trust), func(s Source) bool { return s.List == name })
}

// names reports whether the rule names a list.
func (r Rule) names(list string) bool {
	for _, text := range []string{r.lists.from, r.lists.except, r.lists.to} {
		for item := range strings.SplitSeq(text, ",") {
			if item == listMark+list {
				return true
			}
		}
	}
	return false
}

// Named returns the lists that block or trust names, as the policy has them.
func (p *Policy) Named() (out []List) {
	for _, l := range p.Lists {
		if p.blocks(l.Name) {
			out = append(out, l)
		}
	}
	return out
}
