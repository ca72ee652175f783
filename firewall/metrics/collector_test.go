// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/firewalltest"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// kernelSource is a firewall over a kernel that filters nothing.
type kernelSource struct{ *firewalltest.Kernel }

func (s kernelSource) View(ctx context.Context) (firewall.Filter, error) { return s.Open(ctx, "") }

func sourceOf(t testing.TB, rules ...string) kernelSource {
	t.Helper()
	p := policy.Default()
	p.Interfaces = []string{"eth0"}
	for _, text := range rules {
		r, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		p.Open = append(p.Open, r)
	}
	return kernelSource{&firewalltest.Kernel{Running: p}}
}

// page is what a scrape gets.
func page(t testing.TB, c *Collector) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	handler(c).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Code, w.Body.String()
}

func TestMetricsFollowTheConventions(t *testing.T) {
	source := sourceOf(t, "22/tcp", "80/tcp from 192.0.2.0/24")
	source.Traffic = []loader.Traffic{
		{Of: loader.OfInterface, Interface: "eth0", Counters: []loader.TrafficCounter{{Verdict: "drop", Reason: "closed port", Tally: maps.Tally{Packets: 3, Bytes: 180}}}},
		{Of: loader.OfGone, Counters: []loader.TrafficCounter{{Verdict: "pass", Reason: "rule", Tally: maps.Tally{Packets: 5, Bytes: 500}}}},
	}
	source.Counters = []loader.CounterStatus{{Verdict: maps.Seen, Reason: maps.FlowsFull.String(), Packets: 4}, {Verdict: maps.Seen, Reason: "invalid state", Packets: 6},
		{Verdict: maps.Seen, Reason: maps.Merged.String(), Packets: 9}}
	c := New(source, "1.2", func() Agent { return Agent{Errors: 2, Problem: true, Looked: time.Unix(100, 0)} })
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	code, text := page(t, c)
	if code != http.StatusOK {
		t.Errorf("%d: %s", code, text)
	}
	for _, want := range []string{
		`portcullis_packets_total{interface="eth0",reason="closed port",verdict="drop"} 3`,
		`portcullis_bytes_total{interface="(gone)",reason="rule",verdict="pass"} 500`,
		`portcullis_rule_packets_total{forward="false",rule="80/tcp from 192.0.2.0/24"} 7`,
		`portcullis_flows_refused_total 4`,
		`portcullis_events_total{event="invalid state"} 6`,
		`portcullis_agent_messages_total{level="error"} 2`,
		`portcullis_agent_looked_timestamp_seconds 100`,
		`portcullis_policy_file_problem 1`,
		`portcullis_interface_filtered{interface="eth0",mode="native"} 1`,
		`portcullis_up 1`,
		`portcullis_enforcing 1`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("%s is not in:\n%s", want, text)
		}
	}
}

// A filter that only watches says so, and what it would drop is apart from what passes.
func TestMetricsWhileWatching(t *testing.T) {
	source := sourceOf(t)
	source.Running.WatchOnly = true
	source.Traffic = []loader.Traffic{{Of: loader.OfInterface, Interface: "eth0",
		Counters: []loader.TrafficCounter{{Verdict: maps.WouldDrop, Reason: "closed port", Tally: maps.Tally{Packets: 3}}}}}
	_, text := page(t, New(source, "1.2", nil))
	for _, want := range []string{`portcullis_enforcing 0`, `portcullis_packets_total{interface="eth0",reason="closed port",verdict="would drop"} 3`} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("%s is not in:\n%s", want, text)
		}
	}
}

// Without a filter there is still a page, and it says so.
func TestMetricsWithoutAFilter(t *testing.T) {
	source := sourceOf(t)
	source.Running = nil
	c := New(source, "1.2", nil)
	if code, text := page(t, c); code != http.StatusOK || !strings.Contains(text, "\nportcullis_up 0\n") || strings.Contains(text, "packets_total") {
		t.Errorf("%d: %s", code, text)
	}
	source = sourceOf(t)
	source.OpenErr = errors.New("the pins are broken")
	if _, text := page(t, New(source, "1.2", nil)); !strings.Contains(text, "\nportcullis_up 0\n") {
		t.Errorf("it says %s", text)
	}
}

// Rules that begin alike have labels of their own, and texts that are no UTF-8 are labels all the same.
func TestLabels(t *testing.T) {
	long := strings.Repeat("2001:db8::/32,", 20)
	a, b := ruleLabel(loader.RuleStatus{Rule: "22/tcp from " + long, ID: 1}), ruleLabel(loader.RuleStatus{Rule: "22/tcp from " + long + "::1", ID: 2})
	if a == b || len(a) > longestRule+20 {
		t.Errorf("%q and %q", a, b)
	}
	if got := valid("\xff"); got != `\xff` {
		t.Errorf("%q", got)
	}
	source := sourceOf(t)
	source.Traffic = []loader.Traffic{{Of: loader.OfInterface, Interface: "a\x1b[2Jb"}}
	source.Awaited = []string{"c\x1bd"}
	if _, text := page(t, New(source, "1", nil)); strings.Contains(text, "\x1b") || !strings.Contains(text, `a\\x1b[2Jb`) {
		t.Errorf("it says %q", text)
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:9734": "127.0.0.1:9734", "[::1]:9734": "[::1]:9734", "127.8.9.1:80": "127.8.9.1:80",
		"[::ffff:127.0.0.1]:80": "[::ffff:127.0.0.1]:80", "unix:/run/x/../y.sock": "unix:/run/y.sock",
	} {
		if got, err := ParseAddress(text, false); err != nil || got.String() != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "9734", ":9734", "localhost:9734", "127.0.0.1", "127.0.0.1:0", "0.0.0.0:9734", "192.0.2.1:9734", "unix:", "unix:x", "unix:/" + strings.Repeat("x", 200)} {
		if got, err := ParseAddress(text, false); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
	if _, err := ParseAddress("0.0.0.0:9734", true); err != nil {
		t.Error(err)
	}
}

// BenchmarkScrape measures what a scrape takes beside reading the filter, with ten thousand rules.
func BenchmarkScrape(b *testing.B) {
	rules := make([]string, 10_000)
	for i := range rules {
		rules[i] = fmt.Sprintf("%d/tcp", 10_000+2*i)
	}
	c := New(sourceOf(b, rules...), "1.2", nil)
	h := handler(c)
	for b.Loop() {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
}
