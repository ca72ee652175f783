// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const strangers = 100

// Strangers who say nothing, who are slow, and who never read what they ask for, keep nobody waiting, and take little.
func TestStrangersDoNotSlowScrapes(t *testing.T) {
	var rules []string
	for i := range 10_000 {
		rules = append(rules, fmt.Sprintf("%d/tcp from 192.0.2.0/24", i+1))
	}
	source := sourceOf(t, rules...)
	for _, c := range []struct {
		name string
		be   func(net.Conn)
	}{
		{"say nothing", func(net.Conn) {}},
		{"send a byte a second", func(c net.Conn) { sendSlowly(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") }},
		{"send a body a byte a second", func(c net.Conn) {
			if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"); err == nil {
				sendSlowly(c, strings.Repeat("x", 100))
			}
		}},
		{"never read the answer", func(c net.Conn) { io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") }},
		{"read a byte a second", func(c net.Conn) {
			io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
			for b := make([]byte, 1); ; time.Sleep(time.Second) {
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := serveFor(t, source)
			alone := scrape(t, at, len(rules)) // a machine may be busy
			before := descriptors(t)
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			begun := make(chan struct{}, strangers)
			for range strangers {
				go stay(ctx, at, c.be, begun)
			}
			for range strangers {
				<-begun
			}
			time.Sleep(200 * time.Millisecond) // so that the last of them is being answered
			var most runtime.MemStats
			var took []time.Duration
			for range 20 {
				took = append(took, scrape(t, at, len(rules)))
				var now runtime.MemStats
				if runtime.ReadMemStats(&now); now.HeapInuse > most.HeapInuse {
					most = now
				}
				time.Sleep(100 * time.Millisecond)
			}
			slices.Sort(took)
			if took[len(took)/2] > time.Second+4*alone {
				t.Errorf("a scrape takes %s, and %s without them", took[len(took)/2], alone)
			}
			if most.HeapInuse > 256<<20 {
				t.Errorf("they take %d MB", most.HeapInuse>>20)
			}
			// Both ends of their connections are of this process.
			if n := descriptors(t) - before; n > 2*strangers+40 {
				t.Errorf("they take %d descriptors", n)
			}
		})
	}
}

// stay opens a connection, behaves, and opens another one whenever it is closed.
func stay(ctx context.Context, at string, be func(net.Conn), begun chan<- struct{}) {
	for first := true; ctx.Err() == nil; first = false {
		c, err := net.Dial("tcp", at)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		_ = c.(*net.TCPConn).SetReadBuffer(4096)
		end := context.AfterFunc(ctx, func() { c.Close() })
		if first {
			begun <- struct{}{}
		}
		be(c)
		waitForEnd(ctx, c)
		end()
		c.Close()
	}
}

// waitForEnd waits until the other end has closed a connection, and reads nothing.
func waitForEnd(ctx context.Context, c net.Conn) {
	for ctx.Err() == nil {
		if _, err := c.Write(nil); err != nil || isClosed(c) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func sendSlowly(c net.Conn, text string) {
	for i := range len(text) {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// serveFor serves the metrics of a source as long as the test lasts.
func serveFor(t *testing.T, source Source) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	ctx, stop := context.WithCancel(context.Background())
	listening, served := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(served)
		Serve(ctx, Address{"tcp", at}, New(source, "1", nil), func(err error) { t.Errorf("told: %v", err) }, func() { close(listening) })
	}()
	<-listening
	t.Cleanup(func() {
		stop()
		<-served
	})
	return at
}

// scrape asks as Prometheus does, returns how long it took, and fails unless the answer is whole and comes in the ten seconds
// that Prometheus waits.
func scrape(t *testing.T, at string, rules int) time.Duration {
	t.Helper()
	begun := time.Now()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + at + "/metrics")
	if err != nil {
		t.Error(err)
		return time.Since(begun)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if n := strings.Count(string(body), "portcullis_rule_packets_total{"); err != nil || response.StatusCode != http.StatusOK || n != rules {
		t.Errorf("%s with %d of %d rules, %v", response.Status, n, rules, err)
	}
	return time.Since(begun)
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Who has more connections than others gives way to them, and those of one network of IPv6 are one peer's.
func TestTheGreediestGivesWay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const most = 8
	all := limit(l, most, func(int) {})
	defer all.Close()
	accepted := make(chan *connection)
	go func() {
		for {
			c, err := all.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c.(*connection)
		}
	}()
	dial := func(from string) *connection {
		t.Helper()
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return <-accepted
	}
	modest := dial("127.0.0.2")
	for range 3 * most {
		dial("127.0.0.3")
	}
	if modest.place == nil {
		t.Error("the only connection of a peer was closed, and not one of the peer with many")
	}
	if n := all.open.Len(); n != most || all.of["127.0.0.2"] != 1 || all.of["127.0.0.3"] != most-1 {
		t.Errorf("%d connections are open, of %v", n, all.of)
	}
	for e := all.open.Front(); e != nil; e = all.open.Front() {
		e.Value.(*connection).Close()
	}
	if len(all.of) != 0 {
		t.Errorf("peers that have gone are kept: %v", all.of)
	}
}

// Whoever asks gets what was read after he asked, but for those who ask all the time.
func TestPagesAreReadAnew(t *testing.T) {
	made := 0
	p := newPages(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		made++
		time.Sleep(time.Millisecond)
		fmt.Fprint(w, made)
	}))
	for n := 1; n <= pagesAtOnce; n++ {
		if got := string(p.get(context.Background()).body); got != fmt.Sprint(n) {
			t.Errorf("page %d is the %s. that was made", n, got)
		}
	}
	begun := time.Now()
	for time.Since(begun) < 1200*time.Millisecond {
		if age := time.Since(p.get(context.Background()).begun); age > 3*time.Second {
			t.Fatalf("a page is %s old", age)
		}
		time.Sleep(time.Millisecond)
	}
	if made > pagesAtOnce+2+int(pagesPerSecond*time.Since(begun).Seconds()) {
		t.Errorf("%d pages were made", made)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.making = make(chan struct{})
	if got := p.get(ctx); got != nil {
		t.Errorf("who has gone gets %+v", got)
	}
}
