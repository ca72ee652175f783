// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf/btf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/maps"
)

// It takes the verifier a tenth of a second and more to take a program, in which an interface that has just appeared
// would be open. So programs are kept ready for those that are waited for. They know no MAC of their own and ask the
// device for each frame; Up makes better ones later, see Drift.

var awaitedPrograms = []string{bpf.FirewallProgPortcullisOut, bpf.FirewallProgPortcullisXdp, bpf.FirewallProgPortcullisIn}

func awaited(dir string, ethernet bool, name string) string {
	link := "ip"
	if ethernet {
		link = "ethernet"
	}
	return filepath.Join(dir, "awaited_"+link+"_"+name)
}

// Prepare loads one such program, if one is missing that an interface which is waited for may need, and tells whether
// it did. One at a time: an interface that appears meanwhile waits for no more than that.
func Prepare(ctx context.Context, pinPath string) (loaded bool, err error) {
	p := pins{base: pinPath, ctx: ctx}
	unlock, err := p.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	f, err := open(p)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if awaited, err := f.awaitsUnprepared(); err != nil || !awaited {
		return false, err
	}
	for _, ethernet := range []bool{true, false} {
		for _, name := range awaitedPrograms {
			path := awaited(p.policy(), ethernet, name)
			if _, err := os.Stat(path); err == nil {
				continue
			}
			return true, f.loadAwaited(path, ethernet, name)
		}
	}
	return false, nil
}

// awaitsUnprepared tells whether an interface is waited for that has no programs of its own.
func (f *Filter) awaitsUnprepared() (bool, error) {
	names, err := f.pins.interfaces()
	if err != nil {
		return false, err
	}
	for _, name := range names {
		_, err := os.Stat(program(f.pins.policy(), name, directionOut))
		if _, missing := host.Device(name); errors.Is(missing, host.ErrNoDevice) && err != nil {
			return true, nil
		}
	}
	return false, nil
}

func (f *Filter) loadAwaited(path string, ethernet bool, name string) error {
	spec, err := bpf.LoadFirewall()
	if err != nil {
		return err
	}
	if err := f.set.Measure(spec); err != nil {
		return err
	}
	prog, err := (&factory{spec: spec, set: f.set, cache: btf.NewCache()}).load(name, &maps.Constants{
		Policy:   f.running.Policy,
		HZ:       f.running.HZ,
		Ethernet: ethernet,
	}, "")
	if err != nil {
		return err
	}
	defer prog.Close()
	return pinProgram(prog, path)
}
