// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRestrictingNothing(t *testing.T) {
	for _, c := range []struct{ rules, want string }{ // separated by ;
		{"smtp;smtp from 10.0.0.0/8", "smtp from 10.0.0.0/8"},
		{"25/tcp from 10.0.0.0/8;1-100/tcp", "25/tcp from 10.0.0.0/8"},
		{"25/tcp from 10.0.0.0/8;25/udp", ""},
		{"20-30/tcp from 10.0.0.0/8;1-25/tcp;26-40/tcp", "20-30/tcp from 10.0.0.0/8"},
		{"20-30/tcp from 10.0.0.0/8;1-25/tcp;27-40/tcp", ""},
		{"1-65535/tcp;65535/tcp from 2001:db8::1", "65535/tcp from 2001:db8::1"},
		{"25/tcp from 10.0.0.0/8;25/tcp from 10.1.0.0/16", ""}, // of them the first restricts
		{"25/tcp from 0.0.0.0/0,::/0;25/tcp from 10.0.0.0/8", "25/tcp from 10.0.0.0/8"},
		{"http;ssh", ""},
		{"http on eth0;http from 10.0.0.0/8", ""},
		{"http limit 6/minute;http from 10.0.0.0/8", ""},
		{"http to 192.0.2.1;http on eth1", ""},
		{"http;http limit 6/minute;80/tcp on eth0", "http limit 6/minute;80/tcp on eth0"},
		{"gre;gre from 10.0.0.0/8", "gre from 10.0.0.0/8"},
	} {
		p := Default()
		for text := range strings.SplitSeq(c.rules, ";") {
			r, err := ParseRule(text)
			if err != nil {
				t.Fatal(err)
			}
			p.Open = append(p.Open, r)
		}
		if got := strings.Join(Texts(p.RestrictingNothing()), ";"); got != c.want {
			t.Errorf("%s: %q, want %q", c.rules, got, c.want)
		}
		if texts := p.UselessTexts(); (len(texts) > 0) != (c.want != "") || len(texts) > 0 && !strings.Contains(texts[0], "restricts nothing") {
			t.Errorf("%s: %q", c.rules, texts)
		}
		p.Input = Accept
		if got := p.RestrictingNothing(); got != nil {
			t.Errorf("%s: input is accepted, and it returns %q", c.rules, Texts(got))
		}
	}
}

// By another way: a rule that restricts nothing is covered by those for anybody.
func TestRestrictingNothingIsWhatIsCovered(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		p, free := Default(), Default()
		for range 1 + random.IntN(8) {
			first := uint16(1 + random.IntN(12))
			r := Rule{Ports: []PortRange{{Protocols[random.IntN(2)], first, first + uint16(random.IntN(6))}}}
			if random.IntN(2) == 0 {
				r.From = append(r.From, unreachableSources[1])
			} else {
				free.Open = append(free.Open, r)
			}
			p.Open = append(p.Open, r)
		}
		var want []Rule
		for _, r := range p.Open {
			if !r.Anyone() && len(free.Covering(r)) > 0 {
				want = append(want, r)
			}
		}
		if got := p.RestrictingNothing(); !slices.Equal(Texts(got), Texts(want)) {
			t.Fatalf("%q: %q, want %q", Texts(p.Open), Texts(got), Texts(want))
		}
	}
}

func TestRestrictingNothingOfManyRules(t *testing.T) {
	p := Default()
	for i := range 30_000 {
		open := Rule{Ports: []PortRange{{TCP, uint16(i + 1), uint16(i + 1)}}}
		p.Open = append(p.Open, open, Rule{Ports: open.Ports, From: unreachableSources[:1]})
	}
	began := time.Now()
	texts := p.UselessTexts()
	if took := time.Since(began); took > 10*time.Second { // comparing each with each takes minutes
		t.Errorf("60,000 rules take %s", took)
	}
	if len(texts) != 4 || texts[3] != fmt.Sprintf("%d more rules restrict nothing, as others open their ports to anybody", 30_000-3) {
		t.Errorf("%q", texts)
	}
}
