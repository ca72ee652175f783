// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// A certificate has to be that of the server that is asked, also where that is called by its address.
func TestServerIsTheOneThatIsAsked(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1": "",
		"127.0.0.2": "not 127.0.0.2",
	} {
		listener, err := net.Listen("tcp", address+":0")
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("1")) }))
		server.Listener.Close()
		server.Listener = listener
		server.StartTLS() // with a certificate for 127.0.0.1
		defer server.Close()
		ca := filepath.Join(t.TempDir(), "ca.crt")
		if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := store.OpenWeb(t.Context(), server.URL, store.Options{CA: ca})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Get(t.Context(), "groups/web/current")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("asked at %s: %v; want %q", address, err, want)
		}
	}
}
