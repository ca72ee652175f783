// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func FuzzParseRule(f *testing.F) {
	for _, text := range []string{
		"http", "80/tcp", "60000-61000/udp", "22/tcp from 203.0.113.0/24", "ssh from 192.0.2.1, 2001:db8::/32",
		"domain/udp", "80", "1-2-3/tcp", "tcp/80", "http from ::ffff:1.2.3.4", "http from fe80::1%eth0", "10.0.0.0/255.0.0.0",
		"a,b", " HTTP\tFROM 10.0.0.0/8", "http from 0.0.0.0/0,::/0", "80,443 ,8000-8100/tcp on wg*, eth0 from @office,192.0.2.1 except @bad,@none to ff02::1 limit 6/min burst 3",
		"gre", "proto/89 limit 1/s", "all except 10.0.0.0/9", "tcp to 192.0.2.1", "ssh limit 6", "ssh on on", "ssh from to 192.0.2.1", "ssh burst 5", "icmp", "80/gre", "ssh on \"#x'", "proto/47,",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		names := testNames()
		r, err := names.ParseRule(text)
		if err != nil {
			bad, ok := err.(*RuleError)
			if !ok || bad.Offset < 0 || bad.Offset > len(text) || !strings.HasPrefix(text[bad.Offset:], bad.Token) {
				t.Fatalf("ParseRule(%q): %#v", text, err)
			}
			checkErrorText(t, text, err)
			return
		}
		again, err := names.ParseRule(r.String())
		if err != nil || !reflect.DeepEqual(again, r) || !again.Equal(r) {
			t.Fatalf("ParseRule(%q) = %#v, but %q reads as %#v, %v", text, r, r.String(), again, err)
		}
		if err := r.check(); err != nil || !r.isWritable() {
			t.Fatalf("ParseRule(%q) %v", text, err)
		}
		for _, p := range r.Ports {
			if p.First > p.Last || !r.Covers(p.Protocol, p.Last) {
				t.Fatalf("ParseRule(%q) opens %v", text, p)
			}
		}
		src, dst := r.reach()
		if len(src) == 0 || len(dst) == 0 || !r.Overlaps(r) {
			t.Fatalf("ParseRule(%q) lets nothing in", text)
		}
		for _, s := range src {
			if !r.Allows(r.Ports[0].Protocol, r.Ports[0].First, s.First) || !r.Allows(r.Ports[0].Protocol, r.Ports[0].First, s.Last) {
				t.Fatalf("ParseRule(%q) does not allow %v", text, s)
			}
		}
		for _, inFlow := range []bool{true, false} {
			text := "lists: {office: [203.0.113.0/24, \"2001:db8::/32\"], bad: [10.1.0.0/16], none: []}\nopen: [" + quoteRule(r.String(), true) + "]\n"
			if !inFlow {
				text = strings.Replace(text, "["+quoteRule(r.String(), true)+"]", "\n- "+quoteRule(r.String(), false), 1)
			}
			p, err := Parse("f", []byte(text))
			if err != nil || len(p.Open) != 1 || !p.Open[0].Equal(r) {
				t.Fatalf("%q in a file: %q, %v", r, text, err)
			}
		}
	})
}

var fuzzFiles = []string{
	exampleFile, "", "# c", "open:", "open: []", "{}", "{open: , input: drop}", "open: [http, 'ssh' , ]\n", "open:\r\n- http\r\n",
	"open: [\n  http, # a\n  # b\n  ssh # c\n]\ninput: drop\n...\n", "---\nopen: ~ # c\n", "  open:\n  - \"22/tcp from 2001:db8::\"\n",
	"interfaces: [a, \"\\x01\", é]\nicmp: [echo-request, ipv4/3]\nflows: {max: 2048}\ntimeouts:\n  udp: 1d1h1m1s\n",
	"? open\n: []\n", "open: &a [*a]", "<<: {}", "open: !!seq []", "open: [http\n from]", "{\"open\":[\"http\"]}", "a: b\n---\nc: d",
	"lists: {a: [192.0.2.1], b: {file: x}}\nopen: [ssh from @a limit 6/minute on wg* except @a]\n", "lists:\n  a:\n  - \"::/0\"\nopen:\n- gre to @a\n",
	"forward: {policy: established, open: [all on eth1, \"80,443/tcp to 10.0.0.5\"]}\n", "forward:\n  # a\n  open:\n  - http # b\n", "forward: # a\n  drop # b\n",
	"lists: {a: [10.0.0.0/8], b: {url: \"https://h/\", every: 1h1m}}\nblock: [\"@a\", 192.0.2.1, \"@b\"]\ntrust:\n- \"::/0\" # c\n- '@a'\n",
	"input: {default: drop, \"wg*\": reject}\ninvalid:\n  eth0: log\n  # c\nicmp: {w: [ipv4/8], default: drop}\n",
}

func FuzzParse(f *testing.F) {
	for _, text := range fuzzFiles {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("f", data)
		if err != nil {
			checkErrorText(t, string(data), err)
			for _, line := range strings.Split(err.Error(), "\n") {
				if !strings.HasPrefix(line, "f:") {
					t.Fatalf("%q: error %q has no position", data, err)
				}
			}
			return
		}
		again, err := Parse("g", p.YAML())
		if err != nil || !again.Equal(p) {
			t.Fatalf("%q reads as %+v, written as\n%s\nreads as %+v, %v", data, p, p.YAML(), again, err)
		}
		if !bytes.Equal(again.YAML(), p.YAML()) {
			t.Fatalf("%q: written as\n%s\nthen as\n%s", data, p.YAML(), again.YAML())
		}
	})
}

func FuzzInsertRemove(f *testing.F) {
	for _, text := range fuzzFiles {
		for _, forward := range []bool{false, true} {
			f.Add([]byte(text), "25/tcp from 192.0.2.1,2001:db8::", forward)
			f.Add([]byte(text), "ssh", forward)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, text string, forward bool) {
		before, err := Parse("f", data)
		if err != nil {
			return
		}
		r, err := Names{Forward: forward}.ParseRule(text)
		if err != nil {
			return
		}
		if have, there := before.Find(r); there {
			out, err := RemoveRule("f", data, r)
			if err != nil {
				// The one form that cannot be edited has no dash on the line.
				if strings.Contains(err.Error(), "the dash of the entry") {
					return
				}
				t.Fatalf("%q without %q: %v", data, have, err)
			}
			if !isSubsequence(bytes.ReplaceAll(out, []byte("[]"), nil), data) {
				t.Fatalf("%q without %q is %q", data, have, out)
			}
			return
		}
		with, err := InsertRule("f", data, r)
		if err != nil {
			t.Fatalf("%q with %q: %v", data, r, err)
		}
		if written := bytes.Contains(data, []byte("~")) || bytes.Contains(bytes.ToLower(data), []byte("null")); !written && !isSubsequence(data, with) {
			t.Fatalf("%q with %q is %q", data, r, with)
		}
		out, err := RemoveRule("f", with, r)
		if err != nil {
			t.Fatalf("%q with %q is %q, which cannot go back: %v", data, r, with, err)
		}
		after, err := Parse("f", out)
		if err != nil || !after.Equal(before) {
			t.Fatalf("%q with %q is %q, without is %q", data, r, with, out)
		}
		for _, line := range strings.Split(string(data), "\n") {
			if i := strings.Index(line, "#"); i >= 0 && !strings.Contains(string(out), strings.TrimSuffix(line[i:], "\r")) {
				t.Fatalf("%q with and without %q lost %q: %q", data, r, line[i:], out)
			}
		}
	})
}

// isSubsequence reports whether all of a is in b, in order.
func isSubsequence(a, b []byte) bool {
	for _, c := range b {
		if len(a) > 0 && a[0] == c {
			a = a[1:]
		}
	}
	return len(a) == 0
}

// What is recorded of a policy that is good is good, and means the same.
func FuzzParseComplete(f *testing.F) {
	for _, text := range fuzzFiles {
		f.Add([]byte(text))
	}
	f.Add([]byte("lists: {a: {file: /x, networks: 3, digest: \"00112233445566778899aabbccddeeff\"}}\nblock: [\"@a\"]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("f", data)
		if err != nil {
			if p, err = ParseComplete("f", data); err != nil {
				checkErrorText(t, string(data), err)
				return
			}
		}
		again, err := ParseComplete("f", p.CompleteYAML())
		if err != nil {
			t.Fatalf("%q is recorded as\n%s\n%v", data, p.CompleteYAML(), err)
		}
		p = p.Clone()
		p.Open, p.Interfaces = again.Open, again.Interfaces
		if !again.Equal(p) {
			t.Fatalf("%q is recorded as\n%s\nwhich lacks %v", data, p.CompleteYAML(), Diff(p, again))
		}
	})
}
