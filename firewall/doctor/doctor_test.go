// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/host/netfilter"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

const conf = "/etc/portcullis/portcullis.yaml"

// healthy is what the files of a host say with which all is well.
var healthy = map[string]string{
	"proc/sys/kernel/osrelease":                 "6.12.30-amd64\n",
	"proc/sys/net/core/bpf_jit_enable":          "1\n",
	"proc/sys/net/core/bpf_jit_harden":          "0\n",
	"proc/sys/net/ipv4/conf/all/forwarding":     "0\n",
	"proc/sys/net/ipv6/conf/eth0/forwarding":    "0\n",
	"proc/sys/net/netfilter/nf_conntrack_count": "0\n",
	"proc/sys/net/netfilter/nf_conntrack_max":   "262144\n",
	"proc/thread-self/status":                   "Name:\tportcullis\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n",
	"proc/thread-self/limits":                   "Limit  Soft Limit\nMax locked memory         8388608    8388608    bytes\n",
	"proc/thread-self/mountinfo": "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n23 22 0:21 / /sys rw - sysfs sysfs rw\n" +
		"30 23 0:30 / /sys/fs/bpf rw - bpf bpf rw\n",
	"sys/kernel/btf/vmlinux":                               "BTF",
	"sys/kernel/security/lockdown":                         "[none] integrity confidentiality\n",
	"etc/ufw/ufw.conf":                                     "# off\nENABLED=no\n",
	"etc/portcullis/portcullis.yaml":                       "forward: drop # as it was\nopen: [ssh]\n",
	"run/systemd/system/x":                                 "\n",
	"usr/lib/systemd/system/portcullis.service":            "[Unit]\n",
	"etc/systemd/system/a.target.wants/portcullis.service": "[Unit]\n",
}

// situation is a host, and what was found there.
type situation struct {
	files    map[string]string // instead of healthy; "" takes a file away
	attempt  attempt
	device   *device
	guests   []host.Guests
	ruleset  *netfilter.Ruleset
	rulesErr error
	options  Options
}

// well is a host on which the filter runs as it should.
func well() *situation {
	return &situation{
		files:   map[string]string{},
		attempt: attempt{Support: loader.Support{Compiled: true}},
		device: &device{Name: "eth0", Kind: "device", Driver: "ixgbe", MTU: 1500, Up: true, CPUs: 8, XDPKnown: true, XDP: xdpBasic,
			Channels: channels{"combined", 8, 8}, Mode: loader.ModeNative,
			Hooks: []loader.Hook{{Kind: "xdp", Program: 7, Ours: true}, {Kind: "tcx_out", Program: 8, Ours: true}}},
		ruleset: &netfilter.Ruleset{},
		options: Options{PinPath: loader.DefaultPinPath, Config: conf, Interfaces: []string{"eth0"}, Default: "eth0",
			Policy: policy.Default(), Running: &loader.Status{Policy: policy.Default(), Flows: loader.FlowsStatus{Max: policy.DefaultMaxFlows},
				Interfaces: []loader.Interface{{Name: "eth0", Mode: loader.ModeNative, Present: true}}}},
	}
}

// stopped is well before portcullis up.
func stopped() *situation {
	s := well()
	s.options.Running, s.options.FilterErr = nil, loader.ErrNotRunning
	s.device.Mode, s.device.Hooks = "", nil
	return s
}

func (s *situation) examine() []Check {
	texts := maps.Clone(healthy)
	maps.Copy(texts, s.files)
	tree := fstest.MapFS{}
	for name, text := range texts {
		if text != "" {
			tree[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	e := &examination{Options: s.options, files: files{tree}}
	e.host(s.attempt)
	e.device(s.device)
	e.forwarding(s.guests)
	e.netfilter(s.ruleset, s.rulesErr)
	e.conntrack()
	e.services()
	e.policy()
	e.unit()
	e.filter()
	return e.checks
}

func TestAllIsWell(t *testing.T) {
	for _, c := range well().examine() {
		if c.Verdict != OK || len(c.Fix) > 0 || c.Text == "" {
			t.Errorf("%+v", c)
		}
	}
	for _, c := range stopped().examine() {
		if c.Verdict != OK && c.Name != "filter" {
			t.Errorf("before up: %+v", c)
		}
	}
}

// testcase changes one thing; only the check that is about it may change.
type testcase struct {
	what    string
	from    func() *situation
	change  func(*situation)
	check   string
	verdict Verdict
	says    string
	fix     string // lines
}

func (c *testcase) run(t *testing.T) {
	before := c.from().examine()
	s := c.from()
	c.change(s)
	met := false
	for _, check := range s.examine() {
		switch {
		case check.Name == c.check && check.Verdict == c.verdict:
			met = true
			if !strings.Contains(check.Text, c.says) {
				t.Errorf("says %q, want %q", check.Text, c.says)
			}
			if got := strings.Join(check.Fix, "\n"); got != c.fix {
				t.Errorf("fix\n%s\nwant\n%s", got, c.fix)
			}
		case check.Name != c.check && check.Verdict != OK && !slices.ContainsFunc(before, func(b Check) bool {
			return b.Name == check.Name && b.Verdict == check.Verdict
		}) && (check.Name != "programs" || s.options.FilterErr != fs.ErrPermission): // one thing that nobody may see
			t.Errorf("changes another check too: %+v", check)
		}
	}
	if !met {
		t.Errorf("no %s of %s", c.verdict, c.check)
	}
}

func runAll(t *testing.T, cases []testcase) {
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.check+" "+c.what, " ", "_"), c.run)
	}
}

func file(name, text string) func(*situation) {
	return func(s *situation) { s.files[name] = text }
}
