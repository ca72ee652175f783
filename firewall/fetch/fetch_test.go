// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/policy"
)

// list returns the text of a list of so many networks.
func list(n int) string {
	var b strings.Builder
	b.WriteString("; a list\n")
	for i := range n {
		fmt.Fprintf(&b, "10.%d.%d.0/24 ; SBL%d\n", i>>8, i&255, i)
	}
	return b.String()
}

// serve returns a server over TLS and a fetcher that trusts it.
func serve(t *testing.T, handle http.HandlerFunc) (*httptest.Server, *Fetcher) {
	t.Helper()
	server := httptest.NewUnstartedServer(handle)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, &Fetcher{Store: Store{t.TempDir() + "/lists"}, Client: server.Client()}
}

func text(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) }
}

// A list is fetched whole once, and then asked for by its ETag and its date.
func TestFetchesWhatHasChanged(t *testing.T) {
	answer, etag, sent := list(3), `"one"`, 0
	server, f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		w.Header().Set("Last-Modified", "Sat, 28 Nov 2026 08:00:00 GMT")
		if r.Header.Get("If-None-Match") == etag && r.Header.Get("If-Modified-Since") == "Sat, 28 Nov 2026 08:00:00 GMT" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		sent++
		io.WriteString(w, answer)
	})
	fetch := func() *Result {
		t.Helper()
		r, err := f.Fetch(context.Background(), policy.List{URL: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := fetch(); !r.Changed || r.Networks != 3 || sent != 1 {
		t.Errorf("first: %+v, sent %d times", r, sent)
	}
	path := f.Store.Path(server.URL)
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, long, long); err != nil {
		t.Fatal(err)
	}
	if r := fetch(); r.Changed || r.Networks != 3 || sent != 1 {
		t.Errorf("then: %+v, sent %d times", r, sent)
	}
	c, err := f.Store.Read(server.URL)
	if err != nil || string(c.Text) != answer || time.Since(c.Confirmed) > time.Minute {
		t.Errorf("the copy is %q of %v, %v", c.Text, c.Confirmed, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy has mode %v, %v", info.Mode(), err)
	}
	answer, etag = list(4), `"two"`
	if r := fetch(); !r.Changed || r.Networks != 4 || sent != 2 {
		t.Errorf("changed: %+v, sent %d times", r, sent)
	}
	etag = `"three"` // but the same text
	if r := fetch(); r.Changed || sent != 3 {
		t.Errorf("the same again: %+v, sent %d times", r, sent)
	}
	// A copy that somebody has spoilt counts as none.
	if err := os.WriteFile(path, []byte("10.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Store.Read(server.URL); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a spoilt copy: %v", err)
	}
	if r := fetch(); !r.Changed || sent != 4 {
		t.Errorf("in its place: %+v, sent %d times", r, sent)
	}
}

// Bad lines are told, as long as they are few; and a last line without an end is whole where the length was told.
func TestTakesAListWithAFewBadLines(t *testing.T) {
	server, f := serve(t, text(list(20)+"not an address\n10.99.0.1"))
	r, err := f.Fetch(context.Background(), policy.List{URL: server.URL})
	if err != nil || r.Networks != 21 || len(r.Skipped) != 1 || r.Skipped[0].Line != 22 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A list that lets somebody in is taken only if all of it is good. Of two lists from one URL the one that does counts.
func TestListThatAdmits(t *testing.T) {
	for name, c := range map[string]struct{ answer, want string }{
		"a bad line":       {list(20) + "not an address\n", "a rule or trust names it, and line 22 is no network: more than one address in"},
		"everybody":        {list(20) + "0.0.0.0/0\n", "a rule or trust names it, and it holds 0.0.0.0/0, which is a large part of the internet"},
		"half of IPv6":     {list(20) + "8000::/1\n", "and it holds 8000::/1"},
		"networks":         {list(20) + "10.0.0.0/8\n2001::/16\n", ""},
		"comments as well": {"# a\n\n" + list(20), ""},
	} {
		server, f := serve(t, text(c.answer))
		if err := f.Store.save(&Copy{Text: []byte(list(19)), head: head{URL: server.URL, Networks: 19}}); err != nil {
			t.Fatal(err)
		}
		p := NewPlan(f)
		p.Set([]policy.List{{Name: "a", URL: server.URL, Missing: "not yet"}, {Name: "b", URL: server.URL, Admits: true, Missing: "not yet"}})
		ctx, cancel := context.WithCancel(context.Background())
		go p.Run(ctx)
		r := <-p.Reports()
		cancel()
		want := c.answer
		if c.want != "" {
			want = list(19)
		}
		if (r.Err == nil) != (c.want == "") || r.Err != nil && !strings.Contains(r.Err.Error(), c.want) {
			t.Errorf("%s: %v", name, r.Err)
		}
		if after, err := f.Store.Read(server.URL); err != nil || string(after.Text) != want {
			t.Errorf("%s: the copy is %+v, %v", name, after, err)
		}
		if _, err := f.Fetch(context.Background(), policy.List{URL: server.URL}); err != nil {
			t.Errorf("%s, of a list that only block names: %v", name, err)
		}
	}
}

// The largest list there may be is a copy that can be read, whatever its server says beside.
func TestLargestList(t *testing.T) {
	answer := append(bytes.Repeat([]byte("# "+strings.Repeat("x", 1021)+"\n"), MaxSize>>10-1), "10.0.0.1\n"...)
	answer = append(bytes.Repeat([]byte("\n"), MaxSize-len(answer)), answer...)
	server, f := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"`+strings.Repeat("\"", maxValidator-2)+`"`)
		w.Header().Set("Last-Modified", strings.Repeat("\\", maxValidator))
		w.Write(answer)
	})
	url := server.URL + "/" + strings.Repeat("&", 2000)
	if _, err := f.Fetch(context.Background(), policy.List{URL: url}); err != nil {
		t.Fatal(err)
	}
	if c, err := f.Store.Read(url); err != nil || len(c.Text) != MaxSize || len(c.ETag) != maxValidator || len(c.LastModified) != maxValidator {
		t.Errorf("%v", err)
	}
	answer = append([]byte("\n"), answer...)
	if _, err := f.Fetch(context.Background(), policy.List{URL: url}); err == nil || err.Error() != "it is larger than 64 MiB" {
		t.Errorf("one more: %v", err)
	}
}

func TestValidator(t *testing.T) {
	for text, want := range map[string]string{`W/"a b"`: `W/"a b"`, "\"\xff\"": "", "\"é\"": "", "\"\x01\"": "", strings.Repeat("x", maxValidator+1): ""} {
		if got := validator(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// Whatever else comes is refused, and the copy stays.
func TestRefusesWhatIsNoList(t *testing.T) {
	plain := httptest.NewServer(text(list(100)))
	defer plain.Close()
	zipped := func(data io.Reader) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := io.Copy(z, data); err != nil {
			t.Fatal(err)
		}
		z.Close()
		return b.Bytes()
	}
	bomb := zipped(io.LimitReader(zeros{}, 200<<20))
	for name, c := range map[string]struct {
		handle http.HandlerFunc
		want   string
	}{
		"another scheme":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain.URL, http.StatusFound) }, "which is not https"},
		"round and round": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) }, "it leads on and on"},
		"a web page":      {text("<!DOCTYPE html><p>10.0.0.1\n"), "a web page"},
		"it says HTML": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, list(100))
		}, "a web page"},
		"empty":       {text(""), "it is empty"},
		"comments":    {text("# none\n"), "there is no network in it"},
		"shrunk":      {text(list(9)), "it has shrunk from 100 networks to 9"},
		"unreadable":  {text(list(80) + strings.Repeat("10.0.0.1/8\n", 10)), "10 of its 90 lines are no network, such as line 82: "},
		"not found":   {http.NotFound, `the server answers "404 Not Found"`},
		"no content":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, `the server answers "204`},
		"unasked 304": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, `the server answers "304`},
		"cut, by size": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			io.WriteString(w, list(100))
		}, "cut before all of it had come"},
		"cut, in chunks": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, list(100))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, "cut before all of it had come"},
		"cut, nobody knows": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				io.WriteString(conn, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"+list(100)+"10.99.0")
				conn.Close()
			}
		}, "it is cut off"},
		"too large, as told": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(MaxSize+1))
		}, "it is larger than 4 MiB"},
		"too large, in chunks": {func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, io.LimitReader(zeros{}, 5<<20)) }, "it is larger than 4 MiB"},
		"a bomb": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb)
		}, "it is larger than 4 MiB"},
		"half an archive": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			whole := zipped(strings.NewReader(list(5000)))
			w.Write(whole[:len(whole)/2])
		}, "cut before all of it had come"},
		"slow": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, list(100))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // what is said to end now would be whole
		}, "it took longer than"},
		"silent": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "it took longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, f := serve(t, c.handle)
			before := &Copy{Text: []byte(list(100)), head: head{URL: server.URL, Networks: 100}}
			if err := f.Store.save(before); err != nil {
				t.Fatal(err)
			}
			f.MaxSize = 4 << 20
			if f.Timeout = time.Minute; strings.Contains(c.want, "longer") {
				f.Timeout = 300 * time.Millisecond
			}
			r, err := f.Fetch(context.Background(), policy.List{URL: server.URL})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%+v, %v", r, err)
			}
			if after, err := f.Store.Read(server.URL); err != nil || string(after.Text) != list(100) {
				t.Errorf("the copy is %+v, %v", after, err)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestRefusesAServerThatNobodyVouchesFor(t *testing.T) {
	server, f := serve(t, text(list(3)))
	f.Client = nil // which trusts what the system does
	if _, err := f.Fetch(context.Background(), policy.List{URL: server.URL}); !errors.As(err, new(*tls.CertificateVerificationError)) {
		t.Errorf("a certificate of an authority that nobody knows: %v", err)
	}
	// A certificate for another name.
	f.Client = server.Client()
	if _, err := f.Fetch(context.Background(), policy.List{URL: strings.Replace(server.URL, "127.0.0.1", "localhost", 1)}); !errors.As(err, new(*tls.CertificateVerificationError)) {
		t.Errorf("a certificate for another name: %v", err)
	}
	if _, err := f.Fetch(context.Background(), policy.List{URL: "http" + strings.TrimPrefix(server.URL, "https")}); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("without TLS: %v", err)
	}
	if _, err := f.Store.Read(server.URL); !errors.Is(err, ErrNoCopy) {
		t.Errorf("there is a copy: %v", err)
	}
}

// Where nothing can be written, the copy stays and somebody is told.
func TestTellsWhereNoCopyCanBeKept(t *testing.T) {
	server, f := serve(t, text(list(3)))
	if err := os.WriteFile(f.Store.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := f.Fetch(context.Background(), policy.List{URL: server.URL}); err == nil {
		t.Errorf("%+v", r)
	}
}

// A plan fetches what is due, comes back soon to what has failed, and leaves alone what is fresh.
func TestPlan(t *testing.T) {
	fail := true
	server, f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if fail {
			http.Error(w, "", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, list(3))
	})
	p := NewPlan(f)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go p.Run(ctx)
	feed := policy.List{Name: "feed", URL: server.URL + "/feed", Every: time.Hour, Missing: "not yet"}
	fresh := policy.List{Name: "fresh", URL: server.URL + "/fresh", Every: time.Hour}
	if err := f.Store.save(&Copy{Text: []byte(list(1)), head: head{URL: fresh.URL, Networks: 1}}); err != nil {
		t.Fatal(err)
	}
	lists := []policy.List{{Name: "file", Path: "/nowhere"}, fresh, feed}
	p.Set(lists)
	r := <-p.Reports()
	if r.List != "feed" || r.Err == nil || !strings.Contains(r.Err.Error(), "list feed from "+server.URL+"/feed: the server answers \"503") {
		t.Fatalf("%+v", r)
	}
	if r.Again < firstRetry/2 || r.Again > 2*firstRetry {
		t.Errorf("it is tried again in %v", r.Again)
	}
	p.Set(lists) // which changes nothing
	fail = false
	p.Retry()
	start := time.Now()
	if r = <-p.Reports(); r.List != "feed" || r.Err != nil || !r.Changed || time.Since(start) > 5*time.Second {
		t.Errorf("after the network has changed: %+v, in %v", r, time.Since(start))
	}
	if l, wait := p.next(); wait < 50*time.Minute {
		t.Errorf("%s is due in %v", l.Name, wait)
	}
	p.Set(nil)
	if l, _ := p.next(); l.URL != "" {
		t.Errorf("%s is fetched though nobody wants it", l.Name)
	}
}

func TestBackOff(t *testing.T) {
	p := NewPlan(&Fetcher{})
	l := policy.List{Name: "feed", URL: "https://example.net/", Every: 24 * time.Hour}
	p.Set([]policy.List{l})
	var before time.Duration
	for i := range 40 {
		wait := p.settle(l, io.EOF)
		if wait < before/2 || wait > lastRetry*11/10 || i > 10 && wait < lastRetry*9/10 {
			t.Fatalf("attempt %d comes after %v, that before after %v", i, wait, before)
		}
		before = wait
	}
	if wait := p.settle(l, nil); wait < 21*time.Hour || wait > 27*time.Hour {
		t.Errorf("after a success it waits %v", wait)
	}
}
