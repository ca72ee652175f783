// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
)

// rules is what a firewall is to enforce: the script that the README replaces.
type rules struct {
	protocol uint8
	ports    []uint16 // openPort is the first
	flows    int      // that it has to have room for

	// See scene.
	sources    int
	limited    bool
	interfaces int
	blocked    int
}

// conditional refuses what only the rules of Portcullis can say, or what nobody would do so with another firewall.
func (r rules) conditional() string {
	switch {
	case r.limited:
		return "it is not measured with a limit"
	case r.interfaces > 0:
		return "it is not measured with several interfaces"
	case r.sources > 0:
		return "it is not measured with a list of sources"
	}
	return ""
}

func (r rules) protocolName() string {
	if r.protocol == unix.IPPROTO_UDP {
		return "udp"
	}
	return "tcp"
}

// fate is what becomes of a kind of traffic, and so the rule that has to count it.
type fate int

const (
	dropped fate = iota
	opened
	established
	refused // the port is open, but not to the sender
	blocked // the sender is on a block list
)

// subject is something that is measured. Its methods run in the room inside.
type subject interface {
	install(*stand, rules) error
	remove(*stand) error
	// counted returns the packets that met the rule so far. Not every subject has one; the stand counts too.
	counted(*stand, fate) (n uint64, has bool, err error)
}

// kind describes a subject before there is one.
type kind struct {
	key, title string
	make       func() subject
	absent     func() string      // why this machine cannot have it; "" when it can
	refuses    func(rules) string // why a scene is not for it
	stateful   bool               // it has to see flows begin
	generic    bool               // it runs generic XDP
}

// Keys of subjects.
const (
	keyDrop       = "bare-drop"
	keyPass       = "bare-pass"
	keyNone       = "none"
	keyPortcullis = "portcullis"
	keyGeneric    = "portcullis-generic"
	keyTC         = "portcullis-tc"
	keyIptables   = "iptables"
	keyNft        = "nft"
	keyXDPFilter  = "xdp-filter"
)

// kinds lists every subject, in the order of the report.
func kinds() []kind {
	ours := func(mode loader.Mode) func() subject {
		return func() subject { return &portcullis{mode: mode} }
	}
	return []kind{
		{key: keyDrop, title: "bare XDP_DROP", make: func() subject { return &bare{verdict: xdpDrop} }},
		{key: keyPass, title: "bare XDP_PASS", make: func() subject { return &bare{verdict: xdpPass} }},
		{key: keyPortcullis, title: "Portcullis, native XDP", make: ours(loader.ModeNative), stateful: true},
		{key: keyGeneric, title: "Portcullis, generic XDP", make: ours(loader.ModeGeneric), stateful: true, generic: true, refuses: sameTable},
		{key: keyTC, title: "Portcullis, TC", make: ours(loader.ModeTC), stateful: true, refuses: sameTable},
		{key: keyXDPFilter, title: "xdp-filter", make: func() subject { return xdpFilter{} }, absent: installed("xdp-filter"), refuses: stateless},
		{key: keyIptables, title: "iptables", make: func() subject { return iptables{} }, absent: installed("iptables", "iptables-restore"),
			refuses: fewRules, stateful: true},
		{key: keyNft, title: "nft", make: func() subject { return &nft{} }, absent: installed("nft"), refuses: tracksFlows, stateful: true},
		{key: keyNone, title: "no firewall", make: func() subject { return none{} }},
	}
}

// serves reports whether a work is for a kind: of the bare programs, one drops and one passes.
func (k *kind) serves(w *work) bool {
	return k.key != keyDrop && k.key != keyPass || k.key == w.fate.baseline()
}

func installed(programs ...string) func() string {
	return func() string {
		for _, p := range programs {
			if _, err := exec.LookPath(p); err != nil {
				return p + " is not installed"
			}
		}
		return ""
	}
}

// command runs a program in the room of the calling thread.
func command(input, name string, args ...string) (string, error) {
	cmd := detached(name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", failed(cmd, err, out)
	}
	return string(out), nil
}

// detached is a program that ends with us; an interrupt is for us alone.
func detached(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	return cmd
}

// failed is the error of a program, with what it said.
func failed(cmd *exec.Cmd, err error, said []byte) error {
	return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(said))
}

// none is no firewall.
type none struct{}

func (none) install(*stand, rules) error { return nil }
func (none) remove(*stand) error         { return nil }

func (none) counted(*stand, fate) (uint64, bool, error) { return 0, false, nil }

// bare is a program that does nothing but drop, or pass, everything.
type bare struct {
	none
	verdict int32
	link    link.Link
}

func (b *bare) install(s *stand, _ rules) error {
	program, err := verdictProgram(b.verdict)
	if err != nil {
		return err
	}
	defer program.Close()
	b.link, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: s.to.index})
	if err != nil {
		err = fmt.Errorf("%s: attach an XDP program: %w", s.to.name, err)
	}
	return err
}

func (b *bare) remove(*stand) error { return b.link.Close() }
