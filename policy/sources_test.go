// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// feeds is a reader for which the lists of some URLs have been fetched.
func feeds(texts map[string]string) Reader {
	return Reader{ReadURL: func(l List) ([]byte, error) {
		text, ok := texts[l.URL]
		if !ok {
			return nil, errors.New("not yet")
		}
		return []byte(text), nil
	}}
}

func TestBlockAndTrust(t *testing.T) {
	path := withFiles(t, map[string]string{"bad.txt": "203.0.113.9\n192.0.2.0/24\n203.0.113.9\n2001:db8::/32\n"})
	text := `block: ["@bad", 198.51.100.7, "2001:db8:1::1", "@feed"]
trust: [198.51.100.0/24, "@office"]
lists:
  bad: {file: bad.txt}
  feed: {url: "https://example.net/x", every: 90m}
  soon: {url: "https://example.net/soon"}
  office: ["2001:db8:2::/48", 10.0.0.0/8]
`
	r := feeds(map[string]string{"https://example.net/x": "10.1.2.0/24 ; SBL1\n"})
	p, err := r.Parse(path, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.Block, p.Trust); got != "[@bad 198.51.100.7 2001:db8:1::1 @feed] [198.51.100.0/24 @office]" {
		t.Errorf("it reads as %s", got)
	}
	if got := p.Block[0].Prefixes(); !slices.Equal(got, networksOf("192.0.2.0/24", "203.0.113.9/32", "2001:db8::/32")) || p.Block[0].Holds.Count != 3 {
		t.Errorf("the file holds %v", got)
	}
	if got := p.Block[3].Prefixes(); !slices.Equal(got, networksOf("10.1.2.0/24")) {
		t.Errorf("the feed holds %v", got)
	}
	if l := p.Lists[1]; l.URL != "https://example.net/x" || l.Every != 90*time.Minute || l.Missing != "" || p.Lists[2].Every != DefaultEvery || p.Lists[2].Missing != "not yet" {
		t.Errorf("%+v", p.Lists)
	}
	again, err := r.Parse(path, p.YAML())
	if err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("%s\nreads as %+v, %v", p.YAML(), again, err)
	}
	// Nobody has fetched anything: what is blocked by it is nothing, and the rest counts.
	alone, err := Parse(path, []byte(text))
	if err != nil || len(alone.Block) != 4 || alone.Block[3].Holds.Count != 0 || !strings.Contains(alone.Lists[1].Missing, "has not been fetched") {
		t.Errorf("%+v, %v", alone, err)
	}
	// A rule would let nothing in by it, or somebody in that it is to except.
	if _, err := Parse(path, []byte(text+"open: [ssh from @feed]\n")); err == nil || !strings.Contains(err.Error(), `list "feed" is not known yet`) {
		t.Errorf("a rule of it: %v", err)
	}
}

// The policy in force tells of lists by digest: what is recorded is short, and equals the file's as long as that holds the
// same.
func TestCompleteHasNoNetworksOfLists(t *testing.T) {
	path := withFiles(t, map[string]string{"bad.txt": longList(5000)})
	const text = "lists: {bad: {file: bad.txt}, office: [10.0.0.0/8], unused: [10.1.0.0/16], feed: {url: \"https://example.net/\", every: 1h}}\n" +
		"block: [\"@bad\", \"@feed\", 192.0.2.1]\ntrust: [\"@office\"]\n"
	r := feeds(map[string]string{"https://example.net/": "10.2.0.0/16\n10.3.0.0/16\n"})
	p, err := r.Parse(path, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	record := p.CompleteYAML()
	if len(record) > 3000 || strings.Contains(string(record), "unused") {
		t.Errorf("the record is\n%s", record)
	}
	got, err := ParseComplete("r", record)
	if err != nil {
		t.Fatalf("%v\n%s", err, record)
	}
	if !got.Equal(p) || got.Block[0].IsKnown() || got.Block[0].Holds.Count != 5000 || !got.Trust[0].IsKnown() {
		t.Errorf("it reads as %+v: %v", got, Diff(p, got))
	}
	if l := got.Lists[0]; l.Path != filepath.Join(filepath.Dir(path), "bad.txt") {
		t.Errorf("the list is %+v", l)
	}
	if again := got.CompleteYAML(); string(again) != string(record) {
		t.Errorf("written again as\n%s\nnot\n%s", again, record)
	}
	changed, err := feeds(map[string]string{"https://example.net/": "10.2.0.0/16\n10.4.0.0/16\n"}).Parse(path, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(Diff(got, changed)); got != "[~ block @feed: 2 networks -> 2 others]" {
		t.Errorf("the difference is %s", got)
	}
	// An edit of a file does not change what its lists hold, and keeps what names them.
	if out, err := r.Rewrite(path, []byte(text), got); err != nil || string(out) != text {
		t.Errorf("rewritten as %s, %v", out, err)
	}
	if out, err := r.InsertRule(path, []byte(text), mustRule(t, "http")); err != nil || !strings.HasPrefix(string(out), text) {
		t.Errorf("with a rule it is %s, %v", out, err)
	}
	for _, bad := range []string{
		"lists: {a: {file: /x}}\nblock: [\"@a\"]\n", "lists: {a: {file: /x, networks: -1, digest: \"\"}}\nblock: []\n",
		"lists: {a: {url: \"https://h/\", networks: x, digest: \"00112233445566778899aabbccddeeff\"}}\nblock: []\n",
	} {
		if p, err := ParseComplete("r", []byte(bad)); err == nil {
			t.Errorf("%q reads as %+v", bad, p)
		}
	}
	if _, err := Parse(path, record); err == nil {
		t.Error("a policy file may tell what lists hold")
	}
}

func TestBlockErrors(t *testing.T) {
	path := withFiles(t, map[string]string{
		"few.txt":  longList(30) + "x\n10.0.0.1/8\n",
		"many.txt": longList(8) + "x\n",
		"cut.txt":  longList(30) + "10.0.0.1",
	})
	long := strings.Repeat("x", 2000)
	for text, want := range map[string]string{
		"block:\n":                                  `p:1:1: no value for "block": write block: [], or a list, such as [203.0.113.9, "@bad"]`,
		"block: 192.0.2.1\n":                        `p:1:8: value "192.0.2.1" for "block": write a list, such as [192.0.2.1]`,
		"block: \"@bad\"\n":                         `p:1:8: value "@bad" for "block": write a list, such as ["@bad"]`,
		"block: {}\n":                               `p:1:8: mapping "{}" for "block": write a list, such as [203.0.113.9, "@bad"]`,
		"trust: [x]\n":                              `p:1:9: bad address "x": write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32`,
		"trust: [192.0.2.1, 192.0.2.1]\n":           `p:1:20: duplicate entry "192.0.2.1": it is on line 1 already, keep one`,
		"block: [\"@bad\"]\n":                       `p:1:10: unknown list "@bad": name it and its networks under lists in the policy file`,
		"lists: {bad: [192.0.2.1]}\nblock: [bad]\n": `p:2:9: bad address "bad": write "@bad" for the list of that name`,
		"lists: {bad: [x]}\nblock: [\"@bad\"]\n":    `p:1:15: bad address "x": write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32`,
		"lists: {bad: {url: \"http://example.net/\"}}\nblock: []\n":                            `p:1:20: url "http://example.net/" for list "bad" is not fetched: write one that begins with https://`,
		"lists: {bad: {url: \"https://u:p@example.net/\"}}\nblock: []\n":                       `p:1:20: url "https://u:p@example.net/" for list "bad" names a user: everybody who can ask for a status would see the password, leave it out`,
		"lists: {bad: {url: \"https:///x\"}}\nblock: []\n":                                     `p:1:20: url "https:///x" for list "bad" names no host: write one such as https://example.net/bad.txt`,
		"lists: {bad: {url: \"https://h/#x\"}}\nblock: []\n":                                   `p:1:20: url "https://h/#x" for list "bad" has a part behind #: leave it out`,
		"lists: {bad: {url: \"https://h/ \"}}\nblock: []\n":                                    `p:1:20: url "https://h/ " for list "bad" cannot be read: write one such as https://example.net/bad.txt`,
		"lists: {bad: {url: \"https://h/" + long + "\"}}\nblock: []\n":                         `p:1:20: url "https://h/` + long[:50] + `..." for list "bad" is longer than 2000 bytes`,
		"lists: {bad: {url: }}\nblock: []\n":                                                   `p:1:14: no url for list "bad": write url: "https://example.net/bad.txt", every: 12h`,
		"lists: {bad: {url: \"https://h/\", every: 30s}}\nblock: []\n":                         `p:1:41: list "bad" every "30s" is out of range: write 1m to 30d`,
		"lists: {bad: {url: \"https://h/\", every: 31d}}\nblock: []\n":                         `p:1:41: list "bad" every: duration "31d" is out of range: write 1s to 30d`,
		"lists: {bad: {url: \"https://h/\", every: [1h]}}\nblock: []\n":                        `p:1:41: no duration for list "bad" every: write 12h`,
		"lists: {bad: {url: \"https://h/\", file: x}}\nblock: []\n":                            `p:1:20: list "bad" has a file and a url: keep one`,
		"lists: {bad: {file: few.txt, every: 1h}}\nblock: []\n":                                `p:1:37: list "bad" has no url to fetch so often: write {url: "https://example.net/bad.txt", every: 12h}`,
		"lists: {bad: {file: few.txt, networks: 1}}\nblock: []\n":                              `p:1:30: unknown key "networks" in list "bad": write file: and a path, or url: and every:`,
		"lists: {bad: {file: few.txt}}\nblock: [\"@bad\"]\nopen: [http from @bad]\n":           "DIR/few.txt:32:1: bad address \"x\": write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32\nDIR/few.txt:33:1: network \"10.0.0.1/8\" has host bits set: write 10.0.0.0/8, or 10.0.0.1 for one host",
		"lists: {bad: {file: few.txt}}\nblock: [\"@bad\"]\nforward: {open: [all from @bad]}\n": "DIR/few.txt:32:1: bad address \"x\": write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32\nDIR/few.txt:33:1: network \"10.0.0.1/8\" has host bits set: write 10.0.0.0/8, or 10.0.0.1 for one host",
		"lists: {bad: {file: many.txt}}\nblock: [\"@bad\"]\n":                                  `DIR/many.txt:10:1: bad address "x": write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32`,
		"lists: {bad: {file: cut.txt}}\nblock: [\"@bad\"]\n":                                   `DIR/cut.txt:32:1: no newline after "10.0.0.1", as if the file had been cut off: add one`,
	} {
		_, err := Parse(path, []byte(text))
		if err == nil {
			t.Errorf("%q is good", text)
			continue
		}
		if got := strings.ReplaceAll(strings.ReplaceAll(err.Error(), path, "p"), filepath.Dir(path), "DIR"); got != want {
			t.Errorf("%q:\n got %s\nwant %s", text, got, want)
		}
	}
	// A few bad lines of a list that is only blocked are left out, and told.
	p, err := Parse(path, []byte("lists: {bad: {file: few.txt}}\nblock: [\"@bad\"]\n"))
	if err != nil || p.Block[0].Holds.Count != 30 || len(p.Lists[0].Skipped) != 2 || p.Lists[0].Skipped[1].Line != 33 {
		t.Errorf("%+v, %v", p, err)
	}
}

// Whether a list lets somebody in is known also where the file is no policy, as while a rule needs a list that is not there.
func TestListThatAdmits(t *testing.T) {
	for text, want := range map[string]bool{
		"block: [\"@bad\"]\nopen: [ssh from @badly]":            false,
		"block: [\"@bad\"]\ntrust: [\"@bad\"]":                  true,
		"open: [ssh from @bad]":                                 true,
		"open:\n  - ssh from 192.0.2.1,@bad\n":                  true,
		"open: [ssh from any except @bad]":                      true,
		"forward: {open: [\"all from @office, @bad on eth0\"]}": true,
		"open: [\"limit 22/tcp from @bad to 5/min\", nonsense]": true,
	} {
		var got []bool
		r := Reader{ReadURL: func(l List) ([]byte, error) {
			got = append(got, l.Admits)
			return nil, errors.New("not yet")
		}}
		_, _ = r.Parse("p", []byte("lists: {bad: {url: \"https://h/\"}}\n"+text))
		if len(got) != 1 || got[0] != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// The formats in which lists are to be had, each as it is.
func TestListFormats(t *testing.T) {
	want := networksOf("1.10.16.0/20", "203.0.113.9/32", "2001:db8::/32")
	for name, text := range map[string]string{
		"one a line":        "1.10.16.0/20\n203.0.113.9\n2001:db8::/32\n",
		"netset":            "#\n# firehol_level1\n#\n1.10.16.0/20\n203.0.113.9\n2001:db8::/32\n",
		"CIDR, comments":    "; c\n1.10.16.0/20 # a # b\r\n\r\n\t203.0.113.9;x\n2001:db8::/32;",
		"Spamhaus DROP":     "; Spamhaus DROP List 2026/11/28 - (c) 2026\n; Last-Modified: x\n1.10.16.0/20 ; SBL256894\n203.0.113.9 ; SBL1\n2001:db8::/32 ; SBL2\n",
		"JSON lines":        `{"cidr":"1.10.16.0/20","sblid":"SBL256894","rir":"apnic"}` + "\n" + `{"sblid":"#;","cidr":"203.0.113.9"}` + "\n" + ` { "cidr" : "2001:db8::/32" } ` + "\n" + `{"type":"metadata","timestamp":1,"size":2,"records":3,"copyright":"(c)"}` + "\n",
		"a byte order mark": "\ufeff1.10.16.0/20\n203.0.113.9\n2001:db8::/32\n",
	} {
		got, err := ParseList("f", []byte(text))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for text, want := range map[string]string{
		"{\"cidr\":\"1.2.3.4\"\n":           `f:1:1: "{\"cidr\":\"1.2.3.4\"" is no JSON: write an object a line, such as {"cidr":"203.0.113.0/24"}`,
		" {\"ip\":\"1.2.3.4\"}\n":           `f:1:2: no "cidr" in "{\"ip\":\"1.2.3.4\"}": write {"cidr":"203.0.113.0/24"}`,
		"{\"cidr\":\"1.2.3.4/24\"}\n":       `f:1:1: network "1.2.3.4/24" has host bits set: write 1.2.3.0/24, or 1.2.3.4 for one host`,
		"{\"cidr\":\"1.2.3.4\"}":            `f:1:1: no newline after "{\"cidr\":\"1.2.3.4\"}", as if the file had been cut off: add one`,
		"{\"cidr\":\"1.2.3.4\",\"x\":\"}\n": `f:1:1: "{\"cidr\":\"1.2.3.4\",\"x\":\"}" is no JSON: write an object a line, such as {"cidr":"203.0.113.0/24"}`,
		"1.2.3.4-1.2.3.9\n":                 `f:1:1: bad address "1.2.3.4-1.2.3.9": write 1.2.3.4/30,1.2.3.8/31`,
		"01.2.3.4\n":                        `f:1:1: bad address "01.2.3.4": write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32`,
	} {
		if _, err := ParseList("f", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestSparing(t *testing.T) {
	n := NewNetworks(networksOf("0.0.0.0/1", "10.0.0.0/8", "10.0.0.1/32", "192.0.2.0/24", "2001:db8::/32"))
	gateway := netip.MustParseAddr("10.0.0.1")
	if got := n.Holding(gateway); !slices.Equal(got, networksOf("0.0.0.0/1", "10.0.0.0/8", "10.0.0.1/32")) {
		t.Errorf("it is in %v", got)
	}
	if got := n.Wide(); !slices.Equal(got, networksOf("0.0.0.0/1")) {
		t.Errorf("wide are %v", got)
	}
	s := n.Sparing([]netip.Addr{gateway, netip.MustParseAddr("203.0.113.1")}, n.Wide())
	in := func(text string) bool { return len(s.Holding(netip.MustParseAddr(text))) > 0 }
	if in("10.0.0.1") || !in("10.0.0.0") || !in("10.0.0.2") || !in("10.255.255.255") || !in("192.0.2.1") || !in("2001:db8::1") || in("9.0.0.1") {
		t.Errorf("what is left is %v", s.Prefixes)
	}
	if s.Count != n.Count || s.Digest != n.Digest || !slices.Equal(s.Spared, networksOf("0.0.0.0/1", "10.0.0.1/32")) || !slices.IsSortedFunc(s.Prefixes, comparePrefix) {
		t.Errorf("%+v", s)
	}
	if got := n.Sparing([]netip.Addr{netip.MustParseAddr("203.0.113.1")}, nil); got != n {
		t.Errorf("without need it is another one: %+v", got)
	}
}

// A million networks in any order are read in less than a second.
func TestAMillionAreReadInTime(t *testing.T) {
	var b strings.Builder
	for i := range uint32(1_000_000) {
		n := i*2654435761 | 1<<24
		fmt.Fprintf(&b, "%d.%d.%d.%d\n", n>>24, n>>16&255, n>>8&255, n&255)
	}
	start := cpuTime(t)
	text := ReadList("f", []byte(b.String()))
	held := text.networks()
	if d := cpuTime(t) - start; d > 3*time.Second { // about 0.25 s on a machine at rest
		t.Errorf("it took %v", d)
	}
	if text.Refused != "" || held.Count != len(text.Networks) || held.Count < 500_000 {
		t.Errorf("%d of %d, %s", held.Count, len(text.Networks), text.Refused)
	}
}

// What the fast way reads, the slow one reads alike.
func FuzzReadList(f *testing.F) {
	for _, text := range []string{"1.2.3.0/24\n", "1.2.3.4;x\n", `{"cidr":"1.2.3.0/24"}` + "\n", `{"cidr":"::1","a":[1]}` + "\n", "1.2.3.4/33\n256.1.1.1\n", "0.0.0.0/0\n1.2.3.4\n1.2.3.4\n", "\ufeff#\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		text := ReadList("f", data)
		if len(text.Problems) > maxListErrors+1 || text.Bad > 0 != (len(text.Problems) > 0) {
			t.Fatalf("%q: %d bad lines, %v", data, text.Bad, text.Problems)
		}
		if !slices.IsSortedFunc(text.sorted, comparePrefix) || len(text.sorted) != len(text.Networks) {
			t.Fatalf("%q: %v in order are %v", data, text.Networks, text.sorted)
		}
		for i, p := range text.sorted {
			if again, bad := parsePrefix(word{text: p.String()}); bad != nil || again != p || i > 0 && text.sorted[i-1] == p {
				t.Fatalf("%q: %v, %v", data, p, bad)
			}
		}
		for line := range strings.Lines(string(data)) {
			item := strings.TrimRight(line, "\n")
			fast, ok := parseIPv4([]byte(item))
			slow, bad := parsePrefix(word{text: item})
			if ok && (bad != nil || fast != slow) || !ok && bad == nil && slow.Addr().Is4() {
				t.Fatalf("%q: %v, %v, slowly %v, %v", item, fast, ok, slow, bad)
			}
		}
	})
}
