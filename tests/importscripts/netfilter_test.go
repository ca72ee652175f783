// SPDX-License-Identifier: Apache-2.0

package importscripts

import (
	"errors"
	"flag"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
	"github.com/portcullis-firewall/portcullis/tests/importscripts/fake"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

var real = flag.Int("real", 15, "how many scripts are run with iptables itself")

// TestModelAgreesWithNetfilter runs scripts twice: with the model of iptables,
// and with iptables itself in network namespaces of their own.
func TestModelAgreesWithNetfilter(t *testing.T) {
	lab.RequireRoot(t)
	for _, name := range []string{"bash", "dash", "iptables", "iptables-save", "ip6tables-save"} {
		lab.NeedProgram(t, name)
	}
	bin := buildModel(t)
	dir := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		for seed := *first; seed < *first+uint64(*real) && (*goOn || !t.Failed()); seed++ {
			compareReal(t, seed, bin, dir)
		}
	}()
	<-done
}

// keepsPolicy finds what gives all rules to iptables-restore, but no policy.
var keepsPolicy = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`restore <<.*\n\*filter\n-`) })

func compareReal(t *testing.T, seed uint64, bin, dir string) {
	s := draw(seed)
	if strings.Contains(s.text, "legacy") || strings.Contains(s.text, "$RANDOM") || strings.Contains(s.text, "&") && strings.Contains(s.text, " & ") {
		return // another kind of iptables, or not the same twice
	}
	if keepsPolicy().MatchString(s.text) {
		return // iptables-legacy keeps the policy, and iptables-nft does not
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Error(err)
		return
	}
	model, _, err := run(s, bin, filepath.Join(dir, "model"))
	if errors.Is(err, errTooLong) {
		return
	}
	if err != nil {
		t.Errorf("seed %d: %v", seed, err)
		return
	}
	output, err := execute(s, s.text, filepath.Join(dir, "real"), []string{"PATH=/usr/sbin:/sbin:/usr/bin:/bin"})
	if errors.Is(err, errTooLong) {
		return
	}
	if err != nil {
		t.Errorf("seed %d: %v", seed, err)
		return
	}
	result, err := iptables.ImportWith([]iptables.File{{Name: "fw.sh", Data: []byte(s.text)}}, iptables.Options{Keep: true})
	if err != nil && !errors.Is(err, iptables.ErrNoRules) {
		t.Errorf("seed %d: %v", seed, err)
		return
	}
	for family, program := range []string{"iptables-save", "ip6tables-save"} {
		saved, err := exec.Command(program, "-t", "filter").Output()
		if err != nil {
			t.Errorf("seed %d: %s: %v", seed, program, err)
			return
		}
		kept := fake.New(family == 1)
		if kept.Restore(string(saved), false) != 0 {
			t.Errorf("seed %d: cannot be read:\n%s", seed, saved)
			return
		}
		for _, source := range sources {
			from := netip.MustParseAddr(source)
			if from.Is6() != (family == 1) {
				continue
			}
			for _, protocol := range []string{"tcp", "udp"} {
				for _, port := range ports {
					p := fake.Packet{Source: from, Protocol: protocol, Port: port}
					let := kept.Accepts(p)
					if let != model[family].Accepts(p) {
						t.Errorf("seed %d: netfilter accepts %v: %t, the model: %t\n%s--- output\n%s--- netfilter\n%s--- model\n%s", seed, p, let, !let, s.text, output, saved, model[family].Text())
						return
					}
					if result != nil && allows(result.Policy, p) && !let {
						t.Errorf("seed %d: wider than netfilter: %v\n%s--- netfilter\n%s--- import\n%s", seed, p, s.text, saved, result.YAML())
						return
					}
				}
			}
		}
	}
}
