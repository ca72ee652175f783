// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestWithRule(t *testing.T) {
	p := mustPolicy(t, "open: [http]\n")
	q, added := p.WithRule(mustRule(t, "ssh"))
	if !added || len(q.Open) != 2 || len(p.Open) != 1 {
		t.Errorf("added %v: %v, %v", added, p.Open, q.Open)
	}
	if same, added := p.WithRule(mustRule(t, "80/tcp")); added || same != p {
		t.Errorf("an equal rule was added: %v", same.Open)
	}
	// Two copies of one policy must not write into one array.
	r, _ := q.WithRule(mustRule(t, "25/tcp"))
	s, _ := q.WithRule(mustRule(t, "26/tcp"))
	if r.Open[2].String() != "25/tcp" || s.Open[2].String() != "26/tcp" {
		t.Errorf("copies share rules: %v, %v", r.Open, s.Open)
	}
}

func TestWithoutRule(t *testing.T) {
	p := mustPolicy(t, "open: [http, ssh, 53/udp]\n")
	q, removed, err := p.WithoutRule(mustRule(t, "80/tcp"))
	if err != nil || removed.String() != "http" || fmt.Sprint(q.Open) != "[ssh 53/udp]" || len(p.Open) != 3 {
		t.Errorf("got %v, %v, %v; before %v", q, removed, err, p.Open)
	}
	if _, removed, err = p.WithoutRule(mustRule(t, "domain/udp")); err != nil || removed.String() != "53/udp" {
		t.Errorf("got %v, %v", removed, err)
	}
}

func TestWithoutRuleErrors(t *testing.T) {
	for _, c := range []struct{ open, remove, want string }{
		{"", "http", `close "http": not open`},
		{"22/tcp from 10.0.0.0/8", "22/tcp from 192.0.2.1", `close "22/tcp from 192.0.2.1": not open`},
		{"domain", "53/udp", `no rule "53/udp", but its ports are open through "domain": open "53/tcp", then close "domain"`},
		{"60000-61000/udp", "60010/udp", `no rule "60010/udp", but its ports are open through "60000-61000/udp": open "60000-60009,60011-61000/udp", then close "60000-61000/udp"`},
		{"60000-61000/udp", "60000/udp", `no rule "60000/udp", but its ports are open through "60000-61000/udp": open "60001-61000/udp", then close "60000-61000/udp"`},
		{"22/tcp from 192.0.2.0/24", "ssh", `no rule "ssh", but its ports are open through "22/tcp from 192.0.2.0/24": close "22/tcp from 192.0.2.0/24"`},
		{"60-70/tcp from 192.0.2.1", "65/tcp", `no rule "65/tcp", but its ports are open through "60-70/tcp from 192.0.2.1": open "60-64,66-70/tcp from 192.0.2.1", then close "60-70/tcp from 192.0.2.1"`},
		{"53/tcp; 53/udp", "domain", `no rule "domain", but its ports are open through "53/tcp" and "53/udp": close "53/tcp" and "53/udp"`},
		{"ssh", "22/tcp from 192.0.2.1", `no rule "22/tcp from 192.0.2.1", but its ports are open through "ssh": open "ssh except 192.0.2.1", then close "ssh"`},
		{"22/tcp from 192.0.2.0/24", "22/tcp from 192.0.2.1", `no rule "22/tcp from 192.0.2.1", but its ports are open through "22/tcp from 192.0.2.0/24": open "22/tcp from 192.0.2.0/24 except 192.0.2.1", then close "22/tcp from 192.0.2.0/24"`},
		{"22/tcp from 192.0.2.1", "22/tcp from 192.0.2.0/24", `no rule "22/tcp from 192.0.2.0/24", but its ports are open through "22/tcp from 192.0.2.1": close "22/tcp from 192.0.2.1"`},
	} {
		p := Default()
		for _, text := range strings.Split(c.open, "; ") {
			if text != "" {
				p, _ = p.WithRule(mustRule(t, text))
			}
		}
		_, _, err := p.WithoutRule(mustRule(t, c.remove))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s without %s:\n got %v\nwant %s", c.open, c.remove, err, c.want)
		}
		var covered *CoveredError
		if closed := strings.HasSuffix(c.want, "not open"); errors.Is(err, ErrNotOpen) != closed || errors.As(err, &covered) == closed {
			t.Errorf("%s without %s: %T is of the wrong kind", c.open, c.remove, err)
		}
	}
}

func TestOverlapping(t *testing.T) {
	p := mustPolicy(t, "open: [domain, ssh, 50-60/udp, 53/udp from 192.0.2.1]\n")
	if got := fmt.Sprint(p.Overlapping(mustRule(t, "53/udp"))); got != "[domain 50-60/udp 53/udp from 192.0.2.1]" {
		t.Error(got)
	}
}

func TestEqualAndDiff(t *testing.T) {
	const base = "interfaces: [eth0, eth1]\nopen: [http, ssh]\n"
	for _, c := range []struct{ old, new, want string }{
		{base, base, ""},
		{base, "interfaces: [eth1, eth0]\nopen: [22/tcp, 80/tcp]\nflows: {max: 262144}\ntimeouts: {udp: 30s}\nicmp: accept\n", ""},
		{"icmp: [echo-request]\n", "icmp: [ipv4/8, ipv6/128]\n", ""},
		{"icmp: []\n", "icmp: drop\n", ""},
		{base, "interfaces: [eth0, eth2]\nopen: [http, 80/udp, 25/tcp]\n", "- interface eth1|+ interface eth2|- open ssh|+ open 80/udp|+ open 25/tcp"},
		{"{}", "input: accept\nforward: established\nicmp: drop\ninvalid: accept\n", "~ input: drop -> accept|~ forward: drop -> established|~ icmp: accept -> drop|~ invalid: log -> accept"},
		{"icmp: [echo-request, ipv4/3]\n", "{}", "~ icmp: [echo-request, ipv4/3] -> accept"},
		{"flows: {max: 1024}\n", "timeouts: {udp: 1m, other: 1d}\n", "~ flows max: 1024 -> 262144|~ timeout udp: 30s -> 1m|~ timeout other: 10m -> 1d"},
	} {
		old, new := mustPolicy(t, c.old), mustPolicy(t, c.new)
		var got []string
		for _, change := range Diff(old, new) {
			got = append(got, change.String())
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%q to %q:\n got %q\nwant %q", c.old, c.new, got, c.want)
		}
		if old.Equal(new) != (c.want == "") || new.Equal(old) != (c.want == "") {
			t.Errorf("%q equal %q: %v", c.old, c.new, old.Equal(new))
		}
	}
}

func TestClone(t *testing.T) {
	p := mustPolicy(t, "interfaces: [eth0]\nicmp: [echo-request]\nopen: [http]\ntimeouts: {udp: 1m}\n")
	c := p.Clone()
	if !reflect.DeepEqual(c, p) {
		t.Errorf("got %+v, want %+v", c, p)
	}
	c.Interfaces[0], c.ICMP.Types[0], c.Open[0], c.Timeouts["udp"] = "x", ICMPType{}, Rule{}, time.Hour
	if !p.Equal(mustPolicy(t, "interfaces: [eth0]\nicmp: [echo-request]\nopen: [http]\ntimeouts: {udp: 1m}\n")) {
		t.Errorf("a change of the copy changed %+v", p)
	}
}

func TestTimeout(t *testing.T) {
	p := mustPolicy(t, "timeouts: {udp: 1m}\n")
	if p.Timeout("udp") != time.Minute || p.Timeout("tcp-established") != 432000*time.Second || p.Timeout("none") != 0 {
		t.Error(p.Timeout("udp"), p.Timeout("tcp-established"), p.Timeout("none"))
	}
	seconds := map[string]int{
		"tcp-syn-sent": 120, "tcp-syn-recv": 60, "tcp-established": 432000, "tcp-fin-wait": 120, "tcp-close-wait": 60,
		"tcp-last-ack": 30, "tcp-time-wait": 120, "tcp-close": 10, "tcp-loose": 300, "tcp-unacknowledged": 300, "udp": 30, "udp-stream": 120, "icmp": 30,
		"gre": 30, "gre-stream": 180, "sctp-new": 10, "sctp-established": 210, "sctp-closed": 10, "other": 600,
	}
	for _, timeout := range Timeouts {
		if want := time.Duration(seconds[timeout.Name]) * time.Second; timeout.Default != want {
			t.Errorf("%s: %s, want %s", timeout.Name, timeout.Default, want)
		}
		delete(seconds, timeout.Name)
	}
	if len(seconds) > 0 {
		t.Errorf("missing: %v", seconds)
	}
}

func TestParseTimeout(t *testing.T) {
	for _, c := range []struct {
		text string
		want time.Duration
		back string
	}{
		{"1s", time.Second, "1s"},
		{"90s", 90 * time.Second, "1m30s"},
		{"1500ms", 1500 * time.Millisecond, "1.5s"},
		{"5d", 5 * day, "5d"},
		{"1d12h", 36 * time.Hour, "1d12h"},
		{"36h0m0s", 36 * time.Hour, "1d12h"},
		{"30d", 30 * day, "30d"},
		{"720h", 30 * day, "30d"},
		{"61m1s", 61*time.Minute + time.Second, "1h1m1s"},
	} {
		got, err := ParseDuration(c.text)
		if err != nil || got != c.want {
			t.Errorf("%s: got %v, %v", c.text, got, err)
		}
		if back := formatTimeout(got); back != c.back {
			t.Errorf("%s: written as %s, want %s", c.text, back, c.back)
		}
	}
	const bad, outside = "bad duration %q: write it as 30s, 2m, 12h or 5d", "duration %q is out of range: write 1s to 30d"
	for text, want := range map[string]string{
		"": bad, "d": bad, "-1d": bad, "1.5d": bad, "1d-1s": bad, "5dd": bad, "5d5": bad, "s": bad, "99999d": bad,
		"0d": outside, "999ms": outside, "-5s": outside, "30d1s": outside, "30d1ns": outside, "2562047h": outside, "65535d2562047h": outside,
		"30": "duration %q has no unit: write 30s", "1.5": "duration %q has no unit: write 1.5s",
		"0": "duration %q has no unit: write 1s to 30d", "2592001": "duration %q has no unit: write 1s to 30d",
		"1.2.3": "duration %q has no unit: write 1s to 30d",
	} {
		if _, err := ParseDuration(text); err == nil || err.Error() != strings.Replace(want, "%q", fmt.Sprintf("%q", text), 1) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestICMPTypes(t *testing.T) {
	all := [4]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
	if i := (ICMP{}); i.Types4() != all || i.Types6() != all {
		t.Error("accept does not accept all")
	}
	if i := (ICMP{Mode: ICMPDrop, Types: []ICMPType{{"x", 1, 1}}}); i.Types4() != [4]uint64{} || i.Types6() != [4]uint64{} {
		t.Error("drop does not drop all")
	}
	i := mustPolicy(t, "icmp: [echo-request, timestamp-request, packet-too-big, ipv4/0, ipv4/255, ipv6/64]\n").ICMP
	if got, want := i.Types4(), [4]uint64{1<<8 | 1<<13 | 1, 0, 0, 1 << 63}; got != want {
		t.Errorf("v4: got %x, want %x", got, want)
	}
	if got, want := i.Types6(), [4]uint64{1 << 2, 1, 1 << 0, 0}; got != want {
		t.Errorf("v6: got %x, want %x", got, want)
	}
	for name, want := range map[string][2]int16{
		"destination-unreachable": {3, 1}, "redirect": {5, 137}, "time-exceeded": {11, 3}, "parameter-problem": {12, 4},
		"echo-reply": {0, 129}, "timestamp-reply": {14, -1}, "neighbor-solicitation": {-1, 135}, "ipv6/08": {-1, 8},
	} {
		if got, err := ParseICMPType(name); err != nil || [2]int16{got.v4, got.v6} != want {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestEnumText(t *testing.T) {
	for _, c := range []struct {
		word  string
		value encoding.TextMarshaler
		into  encoding.TextUnmarshaler
	}{
		{"drop", Drop, new(Verdict)}, {"accept", Accept, new(Verdict)},
		{"drop", ForwardDrop, new(ForwardPolicy)}, {"established", ForwardEstablished, new(ForwardPolicy)}, {"accept", ForwardAccept, new(ForwardPolicy)},
		{"log", InvalidLog, new(InvalidPolicy)}, {"drop", InvalidDrop, new(InvalidPolicy)}, {"accept", InvalidAccept, new(InvalidPolicy)},
	} {
		text, err := c.value.MarshalText()
		if err != nil || string(text) != c.word || fmt.Sprint(c.value) != c.word {
			t.Errorf("%v: got %s, %v", c.value, text, err)
		}
		if err := c.into.UnmarshalText(text); err != nil || reflect.ValueOf(c.into).Elem().Interface() != c.value {
			t.Errorf("%s: got %v, %v", text, c.into, err)
		}
		if err := c.into.UnmarshalText([]byte("x")); err == nil || !strings.HasPrefix(err.Error(), `unknown value "x": write `) {
			t.Errorf("x: got %v", err)
		}
	}
	if _, err := Verdict(9).MarshalText(); err == nil || Verdict(9).String() != "unknown(9)" {
		t.Error("an unknown verdict has a text")
	}
}
