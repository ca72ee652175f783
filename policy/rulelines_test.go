// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"testing"
)

func TestRuleLines(t *testing.T) {
	const text = `lists: {office: [192.0.2.0/24]}
open:
  - 80/tcp          # the first
  - "443/tcp"
  - 22/tcp from @office limit 6/minute

  - 8080/tcp from 2001:db8::1,2001:db8::2
forward:
  policy: drop
  open: [80/tcp on eth1,
    443/tcp to 192.0.2.9]
`
	got, err := Reader{}.RuleLines("policy", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[RuleKey]RuleLine)
	for _, c := range []struct {
		forward     bool
		text, meant string
		line        int
	}{
		{false, "80/tcp", "80/tcp", 3},
		{false, "443/tcp", "443/tcp", 4},
		{false, "22/tcp from @office limit 6/minute", "22/tcp limit 6/minute from 192.0.2.0/24", 5},
		{false, "8080/tcp from 2001:db8::1,2001:db8::2", "8080/tcp from 2001:db8::2,2001:db8::1", 7},
		{true, "80/tcp on eth1", "80/tcp on eth1", 10},
		{true, "443/tcp to 192.0.2.9", "443/tcp to 192.0.2.9", 11},
	} {
		r, err := Names{Forward: c.forward}.ParseRule(c.meant)
		if err != nil {
			t.Fatal(err)
		}
		want[r.Key()] = RuleLine{c.line, c.text}
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v\nwant\n%v", got, want)
	}
	for _, text := range []string{"{}", "open: []\nforward: accept\n", "forward: {policy: drop}\n"} {
		if got, err := (Reader{}).RuleLines("policy", []byte(text)); err != nil || len(got) > 0 {
			t.Errorf("%q has %v, %v", text, got, err)
		}
	}
	if _, err := (Reader{}).RuleLines("policy", []byte("open: [nothing/tcp]\n")); err == nil {
		t.Error("a file with mistakes has lines")
	}
}
