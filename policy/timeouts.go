// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Timeout is a time after which an idle flow is forgotten.
type Timeout struct {
	Name    string
	Default time.Duration
	Meaning string // the state of the flow that it is for
}

// Timeouts lists every timeout there is. The defaults are netfilter's, so that
// a host that changes over keeps its habits; tcp-loose is for connections that
// were picked up in the middle.
var Timeouts = []Timeout{
	{"tcp-syn-sent", 120 * time.Second, "this host has sent a SYN"},
	{"tcp-syn-recv", 60 * time.Second, "the SYN was answered by a SYN-ACK"},
	{"tcp-established", 5 * day, "the connection is open"},
	{"tcp-fin-wait", 120 * time.Second, "this host has sent a FIN"},
	{"tcp-close-wait", 60 * time.Second, "that FIN was acknowledged"},
	{"tcp-last-ack", 30 * time.Second, "this host has sent a FIN after the peer's"},
	{"tcp-time-wait", 120 * time.Second, "both FINs were acknowledged: the connection is over"},
	{"tcp-close", 10 * time.Second, "a RST has ended the connection"},
	{"tcp-loose", 300 * time.Second, "picked up in mid-stream, and not answered yet"},
	{"tcp-unacknowledged", 300 * time.Second, "in any state, while the peer may be gone: it leaves data or two probes in a row unanswered, or sent a RST that only the socket can judge; used where it is shorter"},
	{"udp", 30 * time.Second, "UDP and UDP-Lite"},
	{"udp-stream", 120 * time.Second, "UDP that was answered and goes on for more than 2 seconds"},
	{"icmp", 30 * time.Second, "a query that waits for its reply"},
	{"gre", 30 * time.Second, "GRE"},
	{"gre-stream", 180 * time.Second, "GRE that was answered"},
	{"sctp-new", 10 * time.Second, "SCTP that is not associated yet"},
	{"sctp-established", 210 * time.Second, "SCTP that is associated"},
	{"sctp-closed", 10 * time.Second, "SCTP that was shut down or aborted"},
	{"other", 600 * time.Second, "every other protocol, such as ESP"},
}

const (
	day        = 24 * time.Hour
	minTimeout = time.Second
	maxTimeout = 30 * day

	timeoutRange = "1s to 30d" // what messages call that
)

func defaultTimeout(name string) (time.Duration, bool) {
	for _, t := range Timeouts {
		if t.Name == name {
			return t.Default, true
		}
	}
	return 0, false
}

// ParseDuration reads a duration from 1s to 30d, written as Go does, with days
// in front: 1d12h.
func ParseDuration(text string) (time.Duration, error) {
	if text != "" && strings.Trim(text, "0123456789.") == "" {
		example := timeoutRange
		if n, err := strconv.ParseFloat(text, 64); err == nil && n >= minTimeout.Seconds() && n <= maxTimeout.Seconds() {
			example = strconv.FormatFloat(n, 'f', -1, 64) + "s"
		}
		return 0, fmt.Errorf("duration %s has no unit: write %s", quote(text), example)
	}
	bad := fmt.Errorf("bad duration %s: write it as 30s, 2m, 12h or 5d", quote(text))
	rest, total := text, time.Duration(0)
	if head, tail, found := strings.Cut(text, "d"); found {
		days, err := strconv.ParseUint(head, 10, 16)
		if err != nil {
			return 0, bad
		}
		rest, total = tail, time.Duration(days)*day
	}
	if rest != "" || rest == text {
		d, err := time.ParseDuration(rest)
		if err != nil || (rest != text && d < 0) {
			return 0, bad
		}
		// Days fit in 16 bits, so a sum that overflows is negative.
		total += d
	}
	if total < minTimeout || total > maxTimeout {
		return 0, fmt.Errorf("duration %s is out of range: write %s", quote(text), timeoutRange)
	}
	return total, nil
}

// DefaultText returns the default as a policy file has it: "5d".
func (t Timeout) DefaultText() string { return formatTimeout(t.Default) }

// formatTimeout returns the shortest text that ParseDuration reads back.
func formatTimeout(d time.Duration) string {
	var b strings.Builder
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if n := d / unit.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			d %= unit.size
		}
	}
	if d > 0 || b.Len() == 0 {
		b.WriteString(d.String())
	}
	return b.String()
}
