// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"unicode/utf8"
)

const (
	// MaxListNetworks is the most networks that a list may hold.
	MaxListNetworks = 1 << 21

	// maxListErrors is how many errors of one list are told: a text of another kind has one in each line.
	maxListErrors = 10

	// badShare is the share of the lines of a list, one in so many, above which those that cannot be read make it none.
	badShare = 10
)

// ListText is what the text of a list holds.
type ListText struct {
	Networks []netip.Prefix // each once, in the order of the text
	Lines    int            // but for comments and empty ones
	Bad      int            // of them, that are no network
	// Problems are the first of the bad lines, and one that counts the others.
	Problems []*Error
	// Refused says in a few words why the text as a whole is no list, or "".
	Refused string

	sorted []netip.Prefix // Networks in order
	held   *Networks
}

// ParseList reads the text of a list: an address or a network a line, and comments after # or ;. Other formats are told
// apart by what they look like: in JSON lines each line is an object with the network as its "cidr". path is for messages
// only. It returns all problems joined, each an [*Error].
func ParseList(path string, data []byte) ([]netip.Prefix, error) {
	text := ReadList(path, data)
	if err := joinErrors(path, text.Problems); err != nil {
		return nil, err
	}
	return text.Networks, nil
}

// ReadList reads the text of a list as ParseList does, and leaves out the lines that are no network. It is for lists that
// others write.
func ReadList(path string, data []byte) *ListText {
	r := listReader{path: path, text: &ListText{}, ascending: true}
	r.text.Networks = make([]netip.Prefix, 0, min(bytes.Count(data, []byte("\n")), MaxListNetworks))
	r.read(bytes.TrimPrefix(data, []byte("\ufeff"))) // the mark that some editors put before UTF-8
	r.dedupe()
	t := r.text
	if more := t.Bad - len(t.Problems); more > 0 {
		t.Problems = append(t.Problems, &Error{File: path, Line: r.number, Column: 1, Msg: fmt.Sprintf("%d more errors like these", more)})
	}
	if t.Refused == "" && t.Bad*badShare > t.Lines {
		t.Refused = fmt.Sprintf("%d of its %d lines are no network", t.Bad, t.Lines)
	}
	return t
}

// ListCache keeps what texts of lists hold, so that a long one is read once for all that a command does.
type ListCache struct{ texts map[string]cachedList }

type cachedList struct {
	data []byte
	text *ListText
}

// read is ReadList for a text that may have been read before.
func (c *ListCache) read(path string, data []byte) *ListText {
	if c == nil || len(data) == 0 {
		return ReadList(path, data)
	}
	if have, ok := c.texts[path]; ok && len(have.data) == len(data) && &have.data[0] == &data[0] {
		return have.text
	}
	text := ReadList(path, data)
	if c.texts == nil {
		c.texts = make(map[string]cachedList)
	}
	c.texts[path] = cachedList{data, text}
	return text
}

// networks returns what the list holds as block and trust have it.
func (t *ListText) networks() *Networks {
	if t.held == nil {
		t.held = newNetworks(t.sorted)
	}
	return t.held
}

type listReader struct {
	path      string
	text      *ListText
	number    int  // of the line
	ascending bool // the networks so far are in order, each once
	last      netip.Prefix
}

func (r *listReader) report(column int, format string, args ...any) {
	if r.text.Bad++; r.text.Bad <= maxListErrors {
		r.text.Problems = append(r.text.Problems, &Error{File: r.path, Line: r.number, Column: column, Msg: fmt.Sprintf(format, args...)})
	}
}

// refuse reports what makes the whole text no list.
func (r *listReader) refuse(column int, why, format string, args ...any) {
	r.report(column, format, args...)
	r.text.Refused = why
}

func (r *listReader) read(data []byte) {
	if len(data) == 0 {
		r.number = 1
		r.refuse(1, "it is empty", "nothing in the file, as if it had been cut off: write networks, or a comment alone for none")
	}
	for len(data) > 0 {
		r.number++
		line, rest, complete := bytes.Cut(data, []byte("\n"))
		data = rest
		item := bytes.TrimLeft(line, blanks)
		offset := len(line) - len(item)
		var comment bool
		if len(item) > 0 && item[0] == '{' {
			item = bytes.TrimRight(item, blanks)
		} else {
			if i := bytes.IndexAny(item, "#;"); i >= 0 {
				item, comment = item[:i], true
			}
			item = bytes.TrimRight(item, blanks)
		}
		if len(item) == 0 {
			continue
		}
		if !complete && !comment {
			r.refuse(column(line, offset), "it is cut off", "no newline after %s, as if the file had been cut off: add one", quote(string(item)))
			continue
		}
		if item[0] == '{' {
			r.readObject(item, column(line, offset))
		} else {
			r.text.Lines++
			r.readNetwork(item, func() int { return column(line, offset) })
		}
		if len(r.text.Networks) > MaxListNetworks {
			r.refuse(1, "it is too long", "more than %d networks: a filter has no room for them, join them to larger ones", MaxListNetworks)
			return
		}
	}
}

func column(line []byte, offset int) int { return utf8.RuneCount(line[:offset]) + 1 }

func (r *listReader) readNetwork(item []byte, column func() int) {
	if p, ok := parseIPv4(item); ok {
		r.add(p)
		return
	}
	text := string(item)
	switch {
	case item[0] == listMark[0]:
		r.report(column(), "list %s in a list: write its networks", quote(text))
		return
	case bytes.ContainsAny(item, blanks+","):
		r.report(column(), "more than one address in %s: write one a line", quote(text))
		return
	}
	p, bad := parsePrefix(word{text: text})
	if bad != nil {
		r.report(column(), "%s", bad.Msg)
		return
	}
	r.add(p)
}

// listObject is a line of JSON. Some lines are about the list itself.
type listObject struct {
	CIDR *string `json:"cidr"`
	Type string  `json:"type"`
}

func (r *listReader) readObject(item []byte, column int) {
	// Of a million lines each begins like this.
	if rest, ok := bytes.CutPrefix(item, []byte(`{"cidr":"`)); ok {
		network, _, _ := bytes.Cut(rest, []byte(`"`))
		if p, ok := parseIPv4(network); ok && json.Valid(item) {
			r.text.Lines++
			r.add(p)
			return
		}
	}
	var object listObject
	err := json.Unmarshal(item, &object)
	if err == nil && object.CIDR == nil && object.Type == "metadata" {
		return
	}
	r.text.Lines++
	switch {
	case err != nil:
		r.report(column, "%s is no JSON: write an object a line, such as {\"cidr\":\"203.0.113.0/24\"}", quote(string(item)))
	case object.CIDR == nil || *object.CIDR == "":
		r.report(column, "no \"cidr\" in %s: write {\"cidr\":\"203.0.113.0/24\"}", quote(string(item)))
	default:
		r.readNetwork([]byte(*object.CIDR), func() int { return column })
	}
}

func (r *listReader) add(p netip.Prefix) {
	if r.ascending && len(r.text.Networks) > 0 && comparePrefix(r.last, p) >= 0 {
		r.ascending = false
	}
	r.last = p
	r.text.Networks = append(r.text.Networks, p)
}

// dedupe takes out what is there already.
func (r *listReader) dedupe() {
	t := r.text
	if len(t.Networks) == 0 {
		t.Networks = nil
	}
	if r.ascending {
		t.sorted = t.Networks
		return
	}
	t.sorted = sortPrefixes(t.Networks)
	if len(t.sorted) == len(t.Networks) {
		return
	}
	set := newPrefixSet(len(t.sorted))
	for _, p := range t.Networks {
		set.add(p)
	}
	t.Networks = set.prefixes
}

// sortPrefixes returns prefixes in order, each once.
func sortPrefixes(prefixes []netip.Prefix) []netip.Prefix {
	// As numbers, IPv4 takes a tenth of the time.
	short := make([]uint64, 0, len(prefixes))
	var long []netip.Prefix
	for _, p := range prefixes {
		if !p.Addr().Is4() {
			long = append(long, p)
			continue
		}
		b := p.Addr().As4()
		short = append(short, uint64(binary.BigEndian.Uint32(b[:]))<<8|uint64(p.Bits()))
	}
	slices.Sort(short)
	slices.SortFunc(long, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	short, long = slices.Compact(short), slices.Compact(long)
	out := make([]netip.Prefix, 0, len(short)+len(long))
	for _, n := range short {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n>>8))
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(b), int(n&0xff)))
	}
	return append(out, long...)
}

// parseIPv4 reads an address or a network of IPv4 as parsePrefix does, which tells what is wrong with others.
func parseIPv4(text []byte) (p netip.Prefix, ok bool) {
	var b [4]byte
	at := 0
	number := func(most int) (n int, ok bool) {
		from := at
		for at < len(text) && at-from < 3 && '0' <= text[at] && text[at] <= '9' {
			n = 10*n + int(text[at]-'0')
			at++
		}
		return n, at > from && n <= most && (text[from] != '0' || at == from+1)
	}
	for i := range b {
		if i > 0 {
			if at == len(text) || text[at] != '.' {
				return p, false
			}
			at++
		}
		n, ok := number(255)
		if !ok {
			return p, false
		}
		b[i] = byte(n)
	}
	bits := 32
	if at < len(text) && text[at] == '/' {
		at++
		if bits, ok = number(32); !ok {
			return p, false
		}
	}
	if at != len(text) {
		return p, false
	}
	address := binary.BigEndian.Uint32(b[:])
	return netip.PrefixFrom(netip.AddrFrom4(b), bits), uint64(address)<<bits&0xffffffff == 0
}
