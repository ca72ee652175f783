// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// feed serves a list over TLS at a host, whose programs trust it.
func feed(t *testing.T, h *lab.Host, answer *atomic.Pointer[string]) (url string) {
	t.Helper()
	var listener net.Listener
	h.Do(t, func() (err error) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		text := answer.Load()
		if text == nil {
			http.Error(w, "", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, *text)
	}))
	server.Listener.Close()
	server.Listener, server.Config.ErrorLog = listener, log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, certificate, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	return server.URL + "/feed.txt"
}

// A list is fetched by the agent, with the rights that its service has, blocks live connections, too, and is in force at
// the next boot before anything comes in, with nobody to fetch it from.
func TestAgentFetchesBlockLists(t *testing.T) {
	lab.RequireRoot(t)
	l := lab.New(t)
	l.Server.Echo(t, 7)
	var answer atomic.Pointer[string]
	url := feed(t, l.Server, &answer)
	a := newAgent(t, l, fmt.Sprintf("interfaces: [eth0]\nlists: {feed: {url: %q, every: 1h}}\nblock: [\"@feed\"]\nopen: [7/tcp]\n", url))
	a.runs()
	f := families[0]
	live := mustDial(t, l.Client, "tcp", f.server, 7)
	mustTalk(t, live, "before")
	a.waitsFor("the failure to be told", func() bool { return strings.Contains(a.logged(), `the server answers "503`) })
	if out := a.types("status"); !strings.Contains(out, "list feed holds nothing: it has not been fetched from "+url+" yet") {
		t.Errorf("status is\n%s", out)
	}
	text := fmt.Sprintf("; a list\n%s ; SBL1\n198.51.100.0/24 ; SBL2\n", f.client)
	answer.Store(&text)
	a.waitsFor("the list to be in force", func() bool { return strings.Contains(a.logged(), "list feed was fetched from "+url+": 2 networks") })
	a.waitsFor("status", func() bool { return strings.Contains(a.types("status"), "@feed (2 networks)") })
	mustNotTalk(t, live, "blocked")
	mustNotDial(t, l.Client, f.server, 7)
	mustDial(t, l.Client, "tcp", families[1].server, 7)
	if counter(t, l, "blocked") == 0 {
		t.Error("nothing counts as blocked")
	}

	_ = a.ends(unix.SIGTERM)
	a.types("down")
	answer.Store(nil)
	a.runs()
	mustNotDial(t, l.Client, f.server, 7)

	// A copy that is gone is fetched anew, and what it does not hold any more is let in.
	text = "198.51.100.0/24 ; SBL2\n"
	answer.Store(&text)
	copies, err := filepath.Glob(filepath.Join(a.dir, "lists", "*.list"))
	if err != nil || len(copies) != 1 {
		t.Fatalf("the copies are %q, %v", copies, err)
	}
	if err := os.Remove(copies[0]); err != nil {
		t.Fatal(err)
	}
	a.waitsFor("the list to be fetched again", func() bool { return strings.Contains(a.logged(), "list feed was fetched from "+url+": 1 network") })
	a.waitsFor("it to be in force", func() bool { return strings.Contains(a.logged(), "block @feed: 2 networks -> 1 network") })
	mustDial(t, l.Client, "tcp", f.server, 7)
}
