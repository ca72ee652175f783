// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What audit shows are the rules in force; that their list can no longer be read is not kept from who asks.
func TestAuditTellsOfAListThatIsNotGood(t *testing.T) {
	h := newHost(t)
	list := filepath.Join(t.TempDir(), "partners.txt")
	if err := os.WriteFile(list, []byte("192.0.2.0/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := h.runs("interfaces: [eth0]\nlists:\n  partners: {file: " + list + "}\nopen: [ssh, 80/tcp from @partners]\n")
	h.types(0, "audit", "--config", path)
	if strings.Contains(h.stderr, "partners") {
		t.Errorf("of a good list it says %s", h.stderr)
	}
	if err := os.WriteFile(list, []byte("192.0.2.0/240\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.types(0, "audit", "--config", path)
	if !strings.Contains(h.stderr, list+":1:") {
		t.Errorf("of a list with a bad line it says %s", h.stderr)
	}
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	for _, output := range [][]string{nil, {"-o", "json"}} {
		h.types(0, append([]string{"audit", "--config", path}, output...)...)
		if !strings.Contains(h.stderr, `"partners"`) || !strings.Contains(h.stdout, "80/tcp") {
			t.Errorf("of a list that is missing it says %s\n%s", h.stderr, h.stdout)
		}
	}
}
