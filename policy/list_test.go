// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// withFiles writes files into a directory of their own, and returns the path of the policy file there.
func withFiles(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "p.yaml")
}

func TestLists(t *testing.T) {
	path := withFiles(t, map[string]string{
		"partners.txt": "# partners\n\n192.0.2.0/24 # here\r\n  2001:db8:1::/48\t\n192.0.2.0/24\n",
		"none.txt":     "# nobody yet\n",
	})
	// Rules may come before the lists that they name.
	text := `open:
  - ssh from @partners except @bad
  - http except @none,@none.2
  - 443/tcp to @vips
lists:
  bad: [192.0.2.7]
  partners: {file: partners.txt}
  none:
    file: "` + filepath.Dir(path) + `/none.txt"
  none.2: []
  vips:
    - 198.51.100.1
    - "2001:db8::1"
`
	p, err := Parse(path, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	partners := networksOf("192.0.2.0/24", "2001:db8:1::/48")
	want := []List{
		{Name: "bad", Networks: networksOf("192.0.2.7/32")},
		{Name: "partners", Networks: partners, File: "partners.txt", Path: filepath.Join(filepath.Dir(path), "partners.txt")},
		{Name: "none", File: filepath.Dir(path) + "/none.txt", Path: filepath.Join(filepath.Dir(path), "none.txt")},
		{Name: "none.2"},
		{Name: "vips", Networks: networksOf("198.51.100.1/32", "2001:db8::1/128")},
	}
	if !reflect.DeepEqual(p.Lists, want) {
		t.Errorf("the lists are\n%+v, want\n%+v", p.Lists, want)
	}
	if got := fmt.Sprint(p.Open); got != "[ssh from @partners except @bad http except @none,@none.2 443/tcp to @vips]" {
		t.Errorf("the rules are %s", got)
	}
	if ssh := p.Open[0]; !slices.Equal(ssh.From, partners) || !ssh.Allows(TCP, 22, addr("192.0.2.8")) || ssh.Allows(TCP, 22, addr("192.0.2.7")) || ssh.Allows(TCP, 22, addr("203.0.113.1")) {
		t.Errorf("it lets in %v except %v", ssh.From, ssh.Except)
	}
	if !p.Open[1].Unconditional() {
		t.Error("a rule that excepts nobody is no rule for everybody")
	}
	again, err := Parse(path, p.YAML())
	if err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("%s\nreads as %+v, %v", p.YAML(), again, err)
	}
	// What is complete in itself names no list.
	numbers := p.InNumbers()
	if got := fmt.Sprint(numbers.Open); len(numbers.Lists) > 0 || got != "[22/tcp from 192.0.2.0/24,2001:db8:1::/48 except 192.0.2.7 80/tcp 443/tcp to 198.51.100.1,2001:db8::1]" || !numbers.Equal(p) {
		t.Errorf("in numbers: %s", got)
	}
	if got, err := ParseList("f", p.Lists[1].Text()); err != nil || !slices.Equal(got, partners) {
		t.Errorf("the text of a list reads as %v, %v", got, err)
	}
	names := Names{Lists: p.Lists}
	if r, err := names.ParseRule("25/tcp from @vips"); err != nil || len(r.From) != 2 {
		t.Errorf("on a command line: %q, %v", r, err)
	}
	// Whoever has a copy of a list reads that instead.
	reader := Reader{ReadList: func(asked string) ([]byte, error) {
		return fmt.Appendf(nil, "10.0.0.%d\n", len(asked)-len(filepath.Dir(asked))), nil
	}}
	if p, err := reader.Parse(path, []byte(text)); err != nil || fmt.Sprint(p.Open[0].From) != "[10.0.0.13/32]" {
		t.Errorf("from elsewhere: %v, %v", p, err)
	}
}

func TestListErrors(t *testing.T) {
	path := withFiles(t, map[string]string{
		"bad.txt":    "192.0.2.1\n\n  192.0.2.1/24 # x\n@office\n192.0.2.1, 192.0.2.2\n192.0.2.3",
		"empty.txt":  "",
		"binary.txt": strings.Repeat("x\n", 1000),
	})
	if err := syscall.Mkfifo(filepath.Join(filepath.Dir(path), "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	const open = "open: [http from @office]\n"
	for text, want := range map[string]string{
		"lists:\n":             `p:1:1: no value for "lists": write lists: {}, or names and networks, such as office: [203.0.113.0/24, "2001:db8::/32"]`,
		"lists: [192.0.2.1]\n": `p:1:8: list "[192.0.2.1]" for "lists": write names and networks, such as office: [203.0.113.0/24, "2001:db8::/32"]`,
		"lists: {office: [192.0.2.1/24, x, 192.0.2.1, 192.0.2.1]}\n" + open: `p:1:18: network "192.0.2.1/24" has host bits set: write 192.0.2.0/24, or 192.0.2.1 for one host
p:1:32: bad address "x": write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32
p:1:46: duplicate network "192.0.2.1": it is on line 1 already, keep one`,
		"lists: {office: }\n" + open:                    `p:1:9: no value for "office": write office: [], or a list, such as [203.0.113.0/24]`,
		"lists: {office: 192.0.2.1}\n" + open:           `p:1:17: value "192.0.2.1" for "office": write a list, such as [192.0.2.1]`,
		"lists: {office: partners.txt}\n":               `p:1:17: value "partners.txt" for list "office": write networks, such as office: [203.0.113.0/24, "2001:db8::/32"], or {file: /etc/portcullis/partners.txt}`,
		"lists: {office: [\"@other\"]}\n":               `p:1:18: list "@other" in a list: write its networks`,
		"lists: {1a: []}\n":                             `p:1:9: list name "1a" is not possible: write letters, digits, -, _ and ., a letter first, 60 at most`,
		"lists: {a: [], a: []}\n":                       `p:1:16: duplicate key "a": it is on line 1 already, keep one`,
		"lists: {office: {}}\n":                         `p:1:17: nothing in the braces of list "office": write {file: PATH}, or [] for no networks`,
		"lists: {office: {fiel: x}}\n" + open:           `p:1:18: unknown key "fiel" in list "office": write file: and a path, or url: and every:`,
		"lists: {office: {file: }}\n":                   `p:1:17: no path of a file for list "office": write file: /etc/portcullis/partners.txt`,
		"lists: {office: {file: [x]}}\n":                `p:1:17: no path of a file for list "office": write file: /etc/portcullis/partners.txt`,
		"lists: {office: {file: missing.txt}}\n" + open: `p:1:24: cannot read list "office": open DIR/missing.txt: no such file or directory: put the file there, or name another`,
		"lists: {office: {file: fifo}}\n" + open:        `p:1:24: cannot read list "office": DIR/fifo is not a regular file: name one that is`,
		"lists: {office: {file: .}}\n" + open:           `p:1:24: cannot read list "office": DIR is not a regular file: name one that is`,
		"lists: {office: {file: empty.txt}}\n" + open:   `DIR/empty.txt:1:1: nothing in the file, as if it had been cut off: write networks, or a comment alone for none`,
		"lists: {office: []}\n" + open:                  `p:2:18: list "@office" is empty, so that the rule would let nothing in: put networks into it, or take the rule out`,
		"lists: {ofice: []}\n" + open:                   `p:2:18: unknown list "@office": did you mean "@ofice"?`,
		"input: x\nlists: {office: {file: bad.txt}}\n" + open: `p:1:8: unknown value "x" for "input": write drop, accept or reject
DIR/bad.txt:3:3: network "192.0.2.1/24" has host bits set: write 192.0.2.0/24, or 192.0.2.1 for one host
DIR/bad.txt:4:1: list "@office" in a list: write its networks
DIR/bad.txt:5:1: more than one address in "192.0.2.1, 192.0.2.2": write one a line
DIR/bad.txt:6:1: no newline after "192.0.2.3", as if the file had been cut off: add one`,
	} {
		_, err := Parse(path, []byte(text))
		if err == nil {
			t.Errorf("%q is good", text)
			continue
		}
		got := strings.ReplaceAll(strings.ReplaceAll(err.Error(), path, "p"), filepath.Dir(path), "DIR")
		if got != want {
			t.Errorf("%q:\n got %s\nwant %s", text, got, want)
		}
		var one *Error
		if !errors.As(err, &one) || errors.Is(err, fs.ErrNotExist) { // or whoever reads it takes the policy file for missing
			t.Errorf("%q: %T", text, err)
		}
	}
	_, err := Parse(path, []byte("lists: {office: {file: binary.txt}}\n"))
	if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 11 || !strings.HasSuffix(lines[10], ": 990 more errors like these") {
		t.Errorf("of a thousand errors are told: %v", err)
	}
}

// A file that does not have the list that a rule names, or has another one of that name, gets the networks.
func TestRulesOfAListInAnotherFile(t *testing.T) {
	r, err := testNames().ParseRule("ssh from @office")
	if err != nil {
		t.Fatal(err)
	}
	const numbers = "ssh from 203.0.113.0/24,2001:db8::/32"
	for text, want := range map[string]string{
		"open: []\n": `open: ["` + numbers + `"]` + "\n",
		"lists: {office: [192.0.2.1]}\nopen:\n  - http\n":                         "lists: {office: [192.0.2.1]}\nopen:\n  - http\n  - " + numbers + "\n",
		"lists: {office: [\"2001:db8::/32\", 203.0.113.0/24]}\nopen:\n  - http\n": "lists: {office: [\"2001:db8::/32\", 203.0.113.0/24]}\nopen:\n  - http\n  - ssh from @office\n",
	} {
		got, err := InsertRule("f", []byte(text), r)
		if err != nil || string(got) != want {
			t.Errorf("%q became\n%s, %v", text, got, err)
		}
		back, err := RemoveRule("f", got, r)
		if err != nil || string(back) != text {
			t.Errorf("%q went back to\n%s, %v", got, back, err)
		}
	}
	p := &Policy{Open: []Rule{r}}
	if got := mustPolicy(t, string(p.YAML())); !got.Equal(p) || strings.Contains(string(p.YAML()), "@") {
		t.Errorf("written as\n%s", p.YAML())
	}
	// A list that has changed makes another rule of the same text, which stays as it is written.
	const file = "lists: {office: [192.0.2.1]} # c\nopen: [ssh from @office] # d\n"
	was := mustPolicy(t, file)
	out, err := Rewrite("f", []byte(file), p)
	if err != nil || string(out) != "lists: {office: [192.0.2.1]} # c\nopen: [\""+numbers+"\"] # d\n" {
		t.Errorf("rewritten as %s, %v", out, err)
	}
	if changes := Diff(was, p); len(changes) != 1 {
		t.Errorf("the difference is %v", changes)
	}
}

// A rule that names a list can be closed after the list has changed, also by lists that rules in force tell of.
func TestClosingARuleOfAList(t *testing.T) {
	was, err := testNames().ParseRule("ssh from @office except @bad,192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	p := &Policy{Open: []Rule{was, mustRule(t, "http")}}
	now := Names{Lists: []List{{Name: "office", Networks: networksOf("203.0.113.0/25")}, {Name: "bad"}}}
	r, err := now.ParseRule("ssh from @office except @bad,192.0.2.1")
	if err != nil || r.Equal(was) {
		t.Fatal(r, err)
	}
	without, removed, err := p.WithoutRule(r)
	if err != nil || !removed.Equal(was) || len(without.Open) != 1 {
		t.Errorf("%v, %v, %v", without, removed, err)
	}
	file := "lists: {office: [203.0.113.0/28], bad: []}\nopen:\n  - http\n  - ssh from @office except @bad,192.0.2.1\n"
	if out, err := RemoveRule("f", []byte(file), r); err != nil || string(out) != file[:strings.Index(file, "  - ssh")] {
		t.Errorf("%q, %v", out, err)
	}
	if got := ListsOf(p.Open); !reflect.DeepEqual(got, []List{{Name: "office", Networks: was.From}}) {
		t.Errorf("the rules tell of %+v", got)
	}
}

// A rule that reads as before does not go and come: its list has changed.
func TestDiffOfARuleWhoseListChanges(t *testing.T) {
	const rules = "open: [ssh, http from @office, http except @office]\n"
	was := mustPolicy(t, "lists: {office: [203.0.113.0/24]}\n"+rules)
	is := mustPolicy(t, "lists: {office: [203.0.113.0/25]}\n"+rules)
	want := "[~ open http from @office: its lists hold other networks ~ open http except @office: its lists hold other networks]"
	if got := fmt.Sprint(Diff(was, is)); got != want {
		t.Error(got)
	}
	is = mustPolicy(t, "lists: {office: [203.0.113.0/25]}\nopen: [ssh, http from @office]\n")
	want = "[~ open http from @office: its lists hold other networks - open http except @office]"
	if got := fmt.Sprint(Diff(was, is)); got != want {
		t.Error(got)
	}
}

// A rule shows the name of a list as long as that stands for the same addresses.
func TestARuleOfAListThatChanges(t *testing.T) {
	names := Names{Lists: []List{
		{Name: "office", Networks: networksOf("203.0.113.0/25", "203.0.113.128/25")},
		{Name: "bad", Networks: networksOf("203.0.113.9/32")},
	}}
	r, err := names.ParseRule("ssh from @office except @bad limit 6/minute")
	if err != nil {
		t.Fatal(err)
	}
	const spelled = "ssh from 203.0.113.0/25,203.0.113.128/25"
	for _, c := range []struct {
		office, bad []netip.Prefix
		want        string
	}{
		{networksOf("203.0.113.0/24"), networksOf("203.0.113.9/32"), "ssh from @office except @bad limit 6/minute"},
		{networksOf("203.0.113.0/25"), networksOf("203.0.113.9/32"), spelled + " except @bad limit 6/minute"},
		{networksOf("203.0.113.0/25"), nil, spelled + " except 203.0.113.9 limit 6/minute"},
		{nil, networksOf("203.0.113.9/32"), spelled + " except @bad limit 6/minute"},
	} {
		got, stale := r.SpellStale([]List{{Name: "office", Networks: c.office}, {Name: "bad", Networks: c.bad}})
		if got.String() != c.want || stale != (got.String() != r.String()) || !got.Equal(r) {
			t.Errorf("%v, %v: %s, %v", c.office, c.bad, got, stale)
		}
	}
	if got, stale := r.SpellStale(nil); got.String() != spelled+" except 203.0.113.9 limit 6/minute" || !stale {
		t.Errorf("without lists: %s", got)
	}
}

func longList(n int) string {
	var b strings.Builder
	b.WriteString("# a long list\n")
	for i := range n {
		fmt.Fprintf(&b, "%d.%d.%d.0/24 # %d\n", 1+i>>16, i>>8&255, i&255, i)
	}
	return b.String()
}

func TestALongListIsReadInTime(t *testing.T) {
	const lines = 100_000
	path := withFiles(t, map[string]string{"long.txt": longList(lines)})
	start := cpuTime(t)
	p, err := Parse(path, []byte("lists: {long: {file: long.txt}}\nopen: [http from @long, https from @long, ssh except @long]\n"))
	if err != nil || len(p.Lists[0].Networks) != lines || len(p.Open[2].Except) != lines {
		t.Fatal(err)
	}
	if d := cpuTime(t) - start; d > 5*time.Second { // about 0.1 s on a machine at rest
		t.Errorf("it took %v", d)
	}
	if &p.Open[0].From[0] != &p.Open[1].From[0] {
		t.Error("each rule has a copy of its own")
	}
	tooLong := longList(MaxListNetworks + 1)
	if _, err := ParseList("f", []byte(tooLong)); err == nil || !strings.Contains(err.Error(), "f:2097154:1: more than 2097152 networks") {
		t.Errorf("a list that no filter has room for: %v", err)
	}
}

func BenchmarkLongList(b *testing.B) {
	path := withFiles(b, map[string]string{"long.txt": longList(100_000)})
	for b.Loop() {
		if _, err := Parse(path, []byte("lists: {long: {file: long.txt}}\nopen: [http from @long, ssh except @long]\n")); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseList(f *testing.F) {
	for _, text := range []string{"192.0.2.1\n", "# c\n\n 2001:db8::/32 # x\r\n", "192.0.2.1/24\n", "@a\n", "1.2.3.4, 5.6.7.8\n", "", "192.0.2.1", "\xff\n", "0.0.0.0/0\n::/0\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		networks, err := ParseList("f", data)
		if err != nil {
			checkErrorText(t, string(data), err)
			return
		}
		again, err := ParseList("f", List{Name: "x", Networks: networks}.Text())
		if err != nil || !slices.Equal(networks, again) {
			t.Fatalf("%q is %v, and written %v, %v", data, networks, again, err)
		}
		seen := make(map[netip.Prefix]bool)
		for _, p := range networks {
			if seen[p] || p != p.Masked() {
				t.Fatalf("%q has %v", data, networks)
			}
			seen[p] = true
		}
	})
}

func TestAListMayBeginWithAByteOrderMark(t *testing.T) {
	networks, err := ParseList("l", []byte("\ufeff10.0.0.2\n192.0.2.0/24\n"))
	if err != nil || len(networks) != 2 {
		t.Errorf("networks %v, %v", networks, err)
	}
	if _, err := ParseList("l", []byte("\ufeff")); err == nil {
		t.Error("a mark and nothing else is no list")
	}
}
