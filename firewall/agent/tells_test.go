// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
)

// What becomes of the file and of interfaces is told.
func TestTellsWhatIsGone(t *testing.T) {
	ctx := context.Background()
	f := &fake{}
	s := newSetting(t, f, "interfaces: [eth0, eth5]\n")
	log, a := s.log, newAgent(s.Options)
	var err error
	if a.files, err = watchFiles(); err != nil {
		t.Fatal(err)
	}
	defer a.files.Close()
	says := func(do func(context.Context), want string) {
		t.Helper()
		log.Reset()
		do(ctx)
		if got := log.String(); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("the agent says %q, want %q", got, want)
		}
	}
	if err := a.start(ctx); err != nil {
		t.Fatal(err)
	}
	f.Running.Interfaces = []string{"eth0", "eth5"}
	// No interface of this name is on the host that runs the test.
	f.ifaces = []loader.Interface{{Name: "portcullis-eth0", Mode: loader.ModeNative, Present: true}, {Name: "eth5", Mode: loader.ModeAuto}}
	says(a.report, "")
	f.ifaces[0].Present = false
	says(a.report, "warning: portcullis-eth0 is gone; waiting for it\n")
	says(a.report, "")

	f.Running.WatchOnly = true
	const watching = "warning: watching only: nothing is dropped, until \"enforce: true\" is in force\n"
	says(a.report, watching)
	says(a.report, "")
	a.watchTold = a.watchTold.Add(-watchTime)
	says(a.report, watching)
	f.Running.WatchOnly = false
	says(a.report, "the policy is enforced: what it does not let in is dropped\n")
	says(a.report, "")

	write := func(text string) { s.writes(t, text) }
	write("interfaces: [eth0]\n")
	says(a.reload, "eth5 is no longer in the file, but still waited for: \"portcullis down eth5\" ends that\n")
	if err := os.Remove(s.file); err != nil {
		t.Fatal(err)
	}
	says(a.reload, "error: "+s.file+" is gone; the policy in force stays\n")
	write("interfaces: [eth0]\nopen: [htttp]\n")
	says(a.reload, "did you mean \"http\"?; the policy in force stays\n")
	write("interfaces: [eth0]\n")

	for _, changed := range []struct {
		loader.HostChanges
		says string
	}{{loader.HostChanges{MAC: "eth0"}, ""}, {loader.HostChanges{MAC: "eth0", Changed: true}, "eth0 has a new MAC address: programs reloaded\n"},
		{loader.HostChanges{MTU: "eth0", Bytes: 5000}, "eth0: MTU raised to 5000, programs reloaded\n"}} {
		a.reload(ctx)
		f.changed, a.retuned = changed.HostChanges, time.Time{}
		says(a.settle, changed.says)
	}
}
