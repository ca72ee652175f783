// SPDX-License-Identifier: Apache-2.0

package crowdsec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// fake is a firewall, and the log of the bouncer.
type fake struct {
	mu     sync.Mutex
	banned map[netip.Prefix]maps.Ban
	refuse netip.Prefix
	down   bool
	room   int // for addresses of IPv4; 0: any
	lines  []string
}

func (f *fake) Ban(_ context.Context, r firewall.BanRequest) (*firewall.BanReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, loader.ErrNotRunning
	}
	report := &firewall.BanReport{}
	for i, l := range r.Bans {
		if l.Prefix == f.refuse {
			report.Refused = append(report.Refused, firewall.RefusedBan{Place: i, Err: errors.New("it is the default gateway")})
			continue
		}
		if f.room > 0 && len(f.banned) >= f.room && l.Prefix.Addr().Is4() {
			return report, fmt.Errorf("ban: %w", maps.ErrBansFull)
		}
		f.banned[l.Prefix] = maps.Ban{Prefix: l.Prefix, Reason: l.Reason, Until: time.Now().Add(l.For)}
		report.Banned++
	}
	return report, nil
}

func (f *fake) Unban(_ context.Context, r firewall.UnbanRequest) (*firewall.UnbanReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	report := &firewall.UnbanReport{}
	for _, p := range r.Prefixes {
		if b, ok := f.banned[p]; ok && r.IsReason(b.Reason) {
			delete(f.banned, p)
			report.Unbanned++
		}
	}
	return report, nil
}

func (f *fake) EachBan(context.Context) iter.Seq2[maps.Ban, error] {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []maps.Ban
	for _, b := range f.banned {
		all = append(all, b)
	}
	return func(yield func(maps.Ban, error) bool) {
		for _, b := range all {
			if !yield(b, nil) {
				return
			}
		}
	}
}

func (f *fake) say(level, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, level+" "+fmt.Sprintf(format, args...))
}

func (f *fake) Error(format string, args ...any) { f.say("error", format, args...) }
func (f *fake) Warn(format string, args ...any)  { f.say("warning", format, args...) }
func (f *fake) Info(format string, args ...any)  { f.say("info", format, args...) }

func (f *fake) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.lines, "\n")
}

func (f *fake) list() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for p, b := range f.banned {
		out = append(out, bans.Text(p)+" "+b.Reason)
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// api is a local API that answers as it is told.
type api struct {
	*httptest.Server
	mu      sync.Mutex
	answers []func(http.ResponseWriter, *http.Request)
	asked   []string
}

func newAPI(t *testing.T) *api {
	a := &api{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if r.Header.Get("X-Api-Key") != "secret" || r.URL.Path != "/v1/decisions/stream" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		a.asked = append(a.asked, r.URL.Query().Get("startup"))
		if len(a.answers) == 0 {
			fmt.Fprint(w, `{"deleted":null,"new":null}`)
			return
		}
		answer := a.answers[0]
		a.answers = a.answers[1:]
		answer(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *api) then(answers ...func(http.ResponseWriter, *http.Request)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers = append(a.answers, answers...)
}

func says(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

func decision(scope, value, duration, scenario string) string {
	text, _ := json.Marshal(Decision{Type: "ban", Scope: scope, Value: value, Duration: duration, Scenario: scenario})
	return string(text)
}

func newBouncer(t *testing.T, a *api, f *fake) *Bouncer {
	c, err := NewClient(a.URL, "secret", "test")
	if err != nil {
		t.Fatal(err)
	}
	return &Bouncer{Firewall: f, Client: c, Interval: 5 * time.Millisecond, Log: f, refused: make(map[netip.Prefix]bool), ignored: make(map[string]bool)}
}

func TestDecisions(t *testing.T) {
	a, f := newAPI(t), &fake{banned: make(map[netip.Prefix]maps.Ban), refuse: netip.MustParsePrefix("192.0.2.1/32")}
	own := maps.Ban{Prefix: netip.MustParsePrefix("198.51.100.1/32"), Reason: "crowdsec: old"}
	other := maps.Ban{Prefix: netip.MustParsePrefix("198.51.100.2/32"), Reason: "by hand"}
	f.banned[own.Prefix], f.banned[other.Prefix] = own, other
	b := newBouncer(t, a, f)
	a.then(
		says(`{"new":[`+strings.Join([]string{
			decision("Ip", "203.0.113.7", "3h59m59.5s", "crowdsecurity/ssh-bf"),
			decision("ip", "2001:db8::7", "10m", "x\u001b[2J"),
			decision("Range", "203.0.113.77/24", "1h", "lists:drop"),
			decision("Range", "2001:db8:1::/48", "200000h", "lists:drop"),
			decision("Ip", "192.0.2.1", "1h", "gateway"),
			decision("Ip", "203.0.113.8", "-5s", "over"),
			decision("Ip", "203.0.113.9", "soon", "bad"),
			decision("Ip", "nobody", "1h", "bad"),
			decision("Country", "XX", "1h", "geo"),
			`{"type":"captcha","scope":"Ip","value":"203.0.113.10","duration":"1h","scenario":"c"}`,
			`{"type":"ban","scope":"Ip","value":"203.0.113.11","duration":"1h","scenario":"s","simulated":true}`,
		}, ",")+`],"deleted":[`+decision("Ip", "198.51.100.2", "-1h", "gone")+`],"more":{"a":[1,2]}}`),
		says(`{"deleted":[`+decision("Ip", "203.0.113.7", "-1s", "crowdsecurity/ssh-bf")+","+decision("Ip", "198.51.100.2", "-1s", "x")+`],"new":[`+
			decision("Ip", "203.0.113.7", "2h", "again")+","+decision("Ip", "192.0.2.1", "1h", "gateway")+`]}`),
		says(`{"deleted":[`+decision("Range", "203.0.113.0/24", "-1s", "lists:drop")+`],"new":null}`),
	)
	for i, want := range []string{
		"198.51.100.2 by hand; 2001:db8:1::/48 crowdsec: lists:drop; 2001:db8::7 crowdsec: x[2J; 203.0.113.0/24 crowdsec: lists:drop; 203.0.113.7 crowdsec: crowdsecurity/ssh-bf",
		"198.51.100.2 by hand; 2001:db8:1::/48 crowdsec: lists:drop; 2001:db8::7 crowdsec: x[2J; 203.0.113.0/24 crowdsec: lists:drop; 203.0.113.7 crowdsec: again",
		"198.51.100.2 by hand; 2001:db8:1::/48 crowdsec: lists:drop; 2001:db8::7 crowdsec: x[2J; 203.0.113.7 crowdsec: again",
		"198.51.100.2 by hand; 2001:db8:1::/48 crowdsec: lists:drop; 2001:db8::7 crowdsec: x[2J; 203.0.113.7 crowdsec: again",
	} {
		if err := b.pull(t.Context(), i == 0); err != nil {
			t.Fatal(err)
		}
		if got := f.list(); got != want {
			t.Errorf("after answer %d banned are\n%s\nwant\n%s", i+1, got, want)
		}
	}
	log := f.log()
	for text, want := range map[string]int{"not banned: it is the default gateway": 1, `"ban of country" are left out`: 1, `"captcha of ip" are left out`: 1,
		`cannot be read are left out: value "203.0.113.9", duration "soon", and 1 more`: 1, "cannot be read": 1, "4 banned, 1 bans ended": 1} {
		if n := strings.Count(log, text); n != want {
			t.Errorf("%q is logged %d times:\n%s", text, n, log)
		}
	}
	if strings.ContainsRune(log, '\x1b') {
		t.Errorf("an escape is logged: %q", log)
	}
}

// Whatever goes wrong, who is banned stays so, and the next good answer is asked for from the start.
func TestWrongAnswers(t *testing.T) {
	a, f := newAPI(t), &fake{banned: make(map[netip.Prefix]maps.Ban)}
	b := newBouncer(t, a, f)
	good := says(`{"new":[` + decision("Ip", "203.0.113.7", "1h", "a") + `],"deleted":null}`)
	a.then(good)
	if err := b.pull(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the key is sent elsewhere") }))
	defer elsewhere.Close()
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"HTML":       says("<html><body>no</body></html>"),
		"empty":      says(""),
		"null":       says("null"),
		"cut off":    says(`{"new":[` + decision("Ip", "203.0.113.8", "1h", "b")),
		"no list":    says(`{"new":7}`),
		"wrong type": says(`{"new":["x"]}`),
		"error":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"redirect":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"hang up":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		a.then(answer)
		if err := b.pull(t.Context(), false); err == nil {
			t.Errorf("%s: it is taken", name)
		}
		if got := f.list(); got != "203.0.113.7 crowdsec: a" {
			t.Errorf("%s: banned are %s", name, got)
		}
	}
}

// What says nothing of why is the bouncer's own all the same.
func TestEndsABanWithoutAScenario(t *testing.T) {
	a, f := newAPI(t), &fake{banned: make(map[netip.Prefix]maps.Ban)}
	b := newBouncer(t, a, f)
	a.then(says(`{"new":[`+decision("Ip", "203.0.113.7", "1h", "")+","+decision("Ip", "203.0.113.8", "1h", " \u0007")+`]}`),
		says(`{"deleted":[`+decision("Ip", "203.0.113.7", "-1s", "")+`]}`), says(`{"new":[]}`))
	for i, want := range []string{"203.0.113.7 crowdsec: no scenario; 203.0.113.8 crowdsec: no scenario", "203.0.113.8 crowdsec: no scenario", ""} {
		if err := b.pull(t.Context(), i == 2); err != nil || f.list() != want {
			t.Errorf("after answer %d banned are %q, %v", i+1, f.list(), err)
		}
	}
}

// Where one kind of bans is full, the others are banned.
func TestFullOfBans(t *testing.T) {
	a, f := newAPI(t), &fake{banned: make(map[netip.Prefix]maps.Ban), room: 1}
	b := newBouncer(t, a, f)
	var all []string
	for _, value := range []string{"203.0.113.7", "203.0.113.8", "2001:db8::7"} {
		all = append(all, decision("Ip", value, "1h", "a"))
	}
	a.then(says(`{"new":[` + strings.Join(all, ",") + `]}`))
	if err := b.pull(t.Context(), true); !errors.Is(err, maps.ErrBansFull) {
		t.Errorf("got %v", err)
	}
	if got, want := f.list(), "2001:db8::7 crowdsec: a; 203.0.113.7 crowdsec: a"; got != want {
		t.Errorf("banned are %s, want %s", got, want)
	}
	if log := f.log(); !strings.Contains(log, "2 banned") {
		t.Errorf("the log is %s", log)
	}
}

// An answer without end takes no more memory than a long one.
func TestAnswersAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		longest int64
		most    int
		want    string
	}{
		"bytes":     {200, 100, "it is longer than 200 bytes"},
		"decisions": {1 << 20, 2, "it has more than 2 decisions"},
		"neither":   {1 << 20, 3, ""},
	} {
		a, f := newAPI(t), &fake{banned: make(map[netip.Prefix]maps.Ban)}
		b := newBouncer(t, a, f)
		b.Client.longest, b.Client.most = c.longest, c.most
		one := decision("Ip", "203.0.113.7", "1h", "a")
		a.then(says(`{"new":[` + one + "," + one + "," + one + `]}`))
		if err := b.pull(t.Context(), true); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRunGoesOn(t *testing.T) {
	a, f := newAPI(t), &fake{banned: make(map[netip.Prefix]maps.Ban)}
	b := newBouncer(t, a, f)
	a.then(says(`{"new":[`+decision("Ip", "203.0.113.7", "1h", "a")+`]}`), says(`{}`), says("oops"), says(`{"new":[`+decision("Ip", "203.0.113.8", "1h", "b")+`]}`))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	for end := time.Now().Add(20 * time.Second); f.list() != "203.0.113.8 crowdsec: b"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("banned are %s\n%s", f.list(), f.log())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if got := strings.Join(a.asked[:4], " "); got != "true false false true" {
		t.Errorf("asked with %s", got)
	}
	if got := f.list(); got != "203.0.113.8 crowdsec: b" {
		t.Errorf("at the end banned are %s", got)
	}
}

func TestTheKey(t *testing.T) {
	a, f := newAPI(t), &fake{banned: make(map[netip.Prefix]maps.Ban)}
	b := newBouncer(t, a, f)
	b.Client.key = "wrong"
	if err := b.Run(t.Context()); !errors.Is(err, ErrKey) {
		t.Errorf("got %v", err)
	}
	for address, ok := range map[string]bool{"http://127.0.0.1:8080": true, "https://crowdsec.example:8080/": true, "ftp://127.0.0.1": false, "127.0.0.1:8080": false,
		"http://": false, "http://user:pass@127.0.0.1": false} {
		if _, err := NewClient(address, "k", "v"); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	for address, clear := range map[string]bool{"http://127.0.0.1:8080": false, "http://[::1]:8080": false, "http://localhost": false, "http://crowdsec:8080": true,
		"https://crowdsec:8080": false, "http://192.0.2.1": true} {
		if c, err := NewClient(address, "k", "v"); err != nil || c.IsClear() != clear {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(`{"new":[` + decision("Ip", "203.0.113.7", "1h", "a") + `],"deleted":null}`)
	f.Add(`{"deleted":[{}],"new":[null,{"value":1}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		each := func(Decision) error { n++; return nil }
		_ = decode(strings.NewReader(text), len(text), each, each)
		if n > len(text) {
			t.Fatal("more decisions than bytes")
		}
	})
}
