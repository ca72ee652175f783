// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/host"
)

// A file that everybody can write to is not applied, until it is mended.
func TestAnUntrustedFileIsNotApplied(t *testing.T) {
	o, log := options(t, "interfaces: [eth0]\n")
	f := &fake{}
	meets, end := runs(t, f, o)
	meets(host.Change{})
	f.list()
	if err := os.Chmod(o.Config, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Config, []byte("interfaces: [eth0]\nopen: [http]\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * settleTime)
	meets(host.Change{})
	if done := f.list(); len(done) > 0 {
		t.Errorf("it did %q", done)
	}
	if err := os.Chmod(o.Config, 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * settleTime)
	meets(host.Change{})
	if done := f.list(); len(done) == 0 {
		t.Error("it did nothing when the file was mended")
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if want := `(mode 0666): run "chmod o-w ` + o.Config + `"; the policy in force stays`; !strings.Contains(log.String(), want) {
		t.Errorf("the log lacks %s:\n%s", want, log)
	}
}
