// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"strings"
	"testing"
)

// An editor that writes slowly, or a full disk, leaves the start of a file. No
// start may open more than the whole. One that opens less may pass only where
// nothing tells it from a file that somebody wrote: not where a list has no
// entry, and not within an entry.
func TestStartOfAFile(t *testing.T) {
	var sources []string
	for range 20 {
		sources = append(sources, "203.0.113.0/24", "2001:db8::/32", "10.0.0.1")
	}
	for name, text := range map[string]string{
		"example":  exampleFile,
		"packaged": string(Example()),
		"block": "interfaces:\n  - eth10\n  - eth1\nopen:\n  - 22/tcp from 10.0.0.0/8 # office\n  - http\n  - \"53/udp from 2001:db8::/32\"\n" +
			"  - 60000-61000/udp\n  - 8080/tcp from " + strings.Join(sources, ",") + "\ntimeouts:\n  udp: 1m30s\n",
		"written": string(mustPolicy(t, "open: [http, ssh from 10.0.0.0/8, domain]\nicmp: [echo-request]\nflows: {max: 4096}\ntimeouts: {udp: 1m}\n").YAML()),
		"flow":    "interfaces: [eth0]\nopen: [http, ssh from 10.0.0.0/8, domain]\ninvalid: drop\n",
		"braces":  "{interfaces: [eth0], open: [http, 'ssh from 10.0.0.0/8', domain], invalid: drop}\n",
		"json":    `{"interfaces": ["eth0"], "open": ["http", "ssh from 10.0.0.0/8"]}` + "\n",
		"crlf":    strings.ReplaceAll(exampleFile, "\n", "\r\n"),
	} {
		data := []byte(text)
		whole, err := Parse(name, data)
		if err != nil {
			t.Fatal(err)
		}
		parsed, less := 0, 0
		for n := range len(data) {
			p, err := Parse(name, data[:n])
			if err != nil {
				continue
			}
			parsed++
			for _, r := range p.Open {
				if _, ok := whole.Find(r); !ok {
					t.Errorf("%s: the first %d bytes open %s, which the whole does not: %q", name, n, r, data[:n])
				}
			}
			if len(p.Open) == len(whole.Open) {
				continue
			}
			less++
			last := bytes.TrimSpace(data[bytes.LastIndexByte(data[:n], '\n')+1 : n])
			if bytes.HasPrefix(last, []byte("-")) && !bytes.ContainsAny(last, "#\"'") {
				t.Errorf("%s: the first %d bytes open %d of %d rules, and end with half an entry: %q", name, n, len(p.Open), len(whole.Open), last)
			}
		}
		t.Logf("%s: of %d starts %d are policies, of which %d open less than the whole", name, len(data), parsed, less)
	}
}
