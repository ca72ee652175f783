// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/doctor"
	"github.com/portcullis-firewall/portcullis/loader"
)

// stranger is a program of somebody else, which takes nothing.
func stranger(t *testing.T, kind ebpf.ProgramType, verdict int32) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "stranger", Type: kind, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	return prog
}

// attach attaches to the server's eth0 for as long as the test lasts.
func (p *patient) attach(how func(index int) (link.Link, error)) {
	p.t.Helper()
	p.Server.Do(p.t, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		l, err := how(eth0.Index)
		if l != nil {
			p.t.Cleanup(func() { l.Close() })
		}
		return err
	})
}

// The XDP program of somebody else stops up; the doctor names it and its process, and how to filter behind it.
func TestForeignXDP(t *testing.T) {
	p := newPatient(t)
	p.expect("eth0", "programs", doctor.OK)
	prog := stranger(t, ebpf.XDP, 2)
	p.attach(func(index int) (link.Link, error) {
		return link.AttachXDP(link.XDPOptions{Program: prog, Interface: index, Flags: link.XDPGenericMode})
	})
	comm, _ := os.ReadFile("/proc/self/comm")
	got := p.expect("eth0", "programs", doctor.Fail, `the XDP program "stranger" (id `, " of "+strings.TrimSpace(string(comm)))
	if _, err := p.shell("portcullis up --config " + p.config); err == nil {
		t.Error("up goes on, so that was no fail")
	}
	p.must(got.Fix...)
	p.expect("eth0", "programs", doctor.Note, "runs before portcullis")
}

// A TCX program that came to stand before ours may let packets past it.
func TestForeignTCX(t *testing.T) {
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		t.Run(at.String(), func(t *testing.T) {
			p := newPatient(t)
			p.must("portcullis up --mode tc --config " + p.config)
			if strings.Contains(p.print("portcullis status"), "clsact") {
				t.Skip("this kernel has no TCX")
			}
			attach := func(anchor link.Anchor) func(int) (link.Link, error) {
				return func(index int) (link.Link, error) {
					return link.AttachTCX(link.TCXOptions{Program: stranger(t, ebpf.SchedCLS, 0), Interface: index, Attach: at, Anchor: anchor})
				}
			}
			p.attach(attach(link.Tail()))
			p.expect("eth0", "programs", doctor.OK)
			p.attach(attach(link.Head()))
			got := p.expect("eth0", "programs", doctor.Warn, `the TCX program "stranger" (id `, "runs before portcullis")
			p.must(got.Fix...)
			p.expect("eth0", "programs", doctor.OK)
		})
	}
}

// Filters of clsact run after TCX, where the kernel has it. Before Linux 6.6 ours is one of them, and that of the lower
// handle goes first.
func TestForeignFilter(t *testing.T) {
	p := newPatient(t)
	prog := stranger(t, ebpf.SchedCLS, 0)
	p.must("tc qdisc add dev eth0 clsact")
	p.attach(func(index int) (link.Link, error) {
		return nil, netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
			Fd:          prog.FD(), Name: "stranger", DirectAction: true,
		})
	})
	p.must("portcullis up --mode tc --config " + p.config)
	var hooks []loader.Hook
	p.Server.Do(t, func() (err error) {
		hooks, err = loader.Hooks(p.PinPath, "eth0")
		return err
	})
	out := slices.DeleteFunc(hooks, func(h loader.Hook) bool { return !strings.HasSuffix(h.Kind, "_out") })
	strangers := slices.IndexFunc(out, func(h loader.Hook) bool { return h.Name == "stranger" && h.Kind == "clsact_out" })
	if len(out) != 2 || strangers < 0 || out[strangers].Ours || !out[1-strangers].Ours {
		t.Fatalf("on the way out there are %+v", out)
	}
	if strangers == 0 {
		p.expect("eth0", "programs", doctor.Warn, `the TC filter "stranger"`)
	} else {
		p.expect("eth0", "programs", doctor.OK)
	}
}

// Under ip netns exec the bpf filesystem is hidden, and the way around it names this namespace.
func TestHiddenBPFFilesystem(t *testing.T) {
	p := newPatient(t)
	p.expect("host", "bpffs", doctor.OK, p.PinPath)
	cmd := exec.Command("ip", "netns", "exec", p.Server.Name, bin+"/portcullis", "doctor", "-o", "json", "--pin-path", p.PinPath, "--config", p.config)
	out, err := cmd.Output()
	got := p.find(p.read(string(out), err), "host", "bpffs")
	if got.Verdict != doctor.Fail || len(got.Fix) != 1 || !strings.HasPrefix(got.Fix[0], "nsenter --net=/run/netns/"+p.Server.Name+" portcullis ") {
		t.Fatalf("got %+v", got)
	}
	p.must(got.Fix...)
	p.expect("portcullis", "filter", doctor.OK, "it runs on eth0")
}

// One pin path serves one network namespace.
func TestOtherNamespace(t *testing.T) {
	p := newPatient(t)
	p.must("portcullis up --config " + p.config)
	p.Server, p.Client = p.Client, p.Server
	got := p.expect("portcullis", "filter", doctor.Fail, "another network namespace")
	if len(got.Fix) != 1 {
		t.Fatalf("got %+v", got)
	}
	other := "/sys/fs/bpf/portcullis-" + p.Server.Name
	t.Cleanup(func() { os.RemoveAll(other) })
	p.must(got.Fix...)
	if status := p.print("portcullis --pin-path " + other + " status"); !strings.Contains(status, "eth0") {
		t.Error(status)
	}
}

// A root without its capabilities, as in a container, cannot load programs.
func TestRootOfAContainer(t *testing.T) {
	p := newPatient(t)
	p.must("portcullis up --config " + p.config)
	checks := p.read(p.shell("setpriv --bounding-set -all,+net_admin portcullis doctor -o json --config " + p.config))
	if c := p.find(checks, "host", "privileges"); c.Verdict != doctor.Fail || !strings.Contains(c.Text, "lacks CAP_BPF, CAP_PERFMON, as in a container") {
		t.Errorf("%+v", c)
	}
	// What the filter is, and what reaches it, it knows by the pins.
	for _, c := range checks {
		if c.Group == "eth0" && c.Verdict == doctor.Fail {
			t.Errorf("it cannot know: %+v", c)
		}
	}
}
