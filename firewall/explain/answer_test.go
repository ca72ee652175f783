// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// explanation is one of a TCP segment, or of what a protocol's number says.
func explanation(reason maps.Reason, protocol uint8) *loader.Explanation {
	x := &loader.Explanation{Explanation: &maps.Explanation{
		Reason: reason, Step: maps.StepRefuse, Protocol: protocol, List: 1, Limited: 1, Wait: 1500 * time.Millisecond,
		Source: netip.MustParseAddrPort("203.0.113.9:40000"), Destination: netip.MustParseAddrPort("192.0.2.1:443"),
	}}
	switch reason.String() {
	case rejected:
		for _, r := range maps.Reasons() {
			if r.String() == closedPort {
				x.Refused = r
			}
		}
	case banned:
		x.Ban = &maps.Ban{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Reason: "ssh\x1b[1m", Until: time.Now().Add(time.Hour)}
	}
	return x
}

// Each reason has a sentence of its own, and all drops but those of broken packets say what to do.
func TestEveryReasonIsExplained(t *testing.T) {
	broken := []string{"tiny fragment"}
	seen := make(map[string]string)
	for _, r := range maps.Reasons() {
		if r.Verdict() == maps.Seen {
			continue
		}
		x := explanation(r, 6)
		a := &Answer{Verdict: r.Verdict(), Reason: r.String(), Invalid: "invalid state", List: "bad", Wait: 2}
		if x.Ban != nil {
			a.Ban = &Ban{Address: "203.0.113.0/24", Reason: x.Ban.Reason, Left: 3600}
		}
		a.Why = a.why(x)
		if a.Why == "" || a.Why == r.String() || strings.ContainsRune(a.Why, '\x1b') {
			t.Errorf("%s, %s: %q", r.Verdict(), r, a.Why)
		}
		if other, twice := seen[a.Why]; twice {
			t.Errorf("%s and %s: %q", other, r, a.Why)
		}
		seen[a.Why] = r.String()
		isBroken := strings.HasPrefix(r.String(), "bad ")
		for _, name := range broken {
			isBroken = isBroken || name == r.String()
		}
		if strings.HasPrefix(a.Why, "it is broken: ") != isBroken {
			t.Errorf("%s: %q", r, a.Why)
		}
		if r.Verdict() != maps.Drop {
			continue
		}
		a.advise(x, nil, "policy.yaml")
		if (a.Command == "" && a.Advice == "") != isBroken {
			t.Errorf("%s: to let it in: %q, %q", r, a.Command, a.Advice)
		}
		if strings.ContainsAny(a.Command, "\x1b\n") {
			t.Errorf("%s: %q", r, a.Command)
		}
	}
}

func TestPacketsInALine(t *testing.T) {
	for _, c := range []struct {
		protocol, kind, flags uint8
		want                  string
	}{
		{6, 0, 0x12, "tcp 203.0.113.9:40000 > 192.0.2.1:443 syn,ack"},
		{6, 0, 0, "tcp 203.0.113.9:40000 > 192.0.2.1:443"},
		{17, 0, 0, "udp 203.0.113.9:40000 > 192.0.2.1:443"},
		{1, 8, 0, "icmp type 8 203.0.113.9 > 192.0.2.1"},
		{47, 0, 0, "gre 203.0.113.9 > 192.0.2.1"},
		{253, 0, 0, "proto/253 203.0.113.9 > 192.0.2.1"},
	} {
		x := explanation(0, c.protocol)
		x.ICMPType, x.TCPFlags = c.kind, c.flags
		if got := packetText(x.Explanation); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if got := packetText(&maps.Explanation{}); got != "unreadable" {
		t.Errorf("what could not be parsed is %q", got)
	}
}
