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
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/lock"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
)

// It takes the verifier a tenth of a second and more to take a program, in which an interface that has just appeared
// would be open. So programs are kept ready for those that are waited for. They know no MAC of their own and ask the
// device for each frame; Up makes better ones later, see HostChanges.

var preloadedPrograms = []string{bpf.FirewallProgPortcullisOut, bpf.FirewallProgPortcullisXdp, bpf.FirewallProgPortcullisIn}

func preloaded(dir string, ethernet bool, name string) string {
	link := "ip"
	if ethernet {
		link = "ethernet"
	}
	return filepath.Join(dir, "preload_"+link+"_"+name)
}

// Prepare loads one such program, if one is missing that an interface which is waited for may need, and tells whether
// it did. One at a time: an interface that appears meanwhile waits for no more than that.
func Prepare(ctx context.Context, pinPath string) (loaded bool, err error) {
	p, err := pin.At(pinPath)
	if err != nil {
		return false, err
	}
	unlock, err := p.Lock(ctx, lock.Exclusive)
	if err != nil {
		return false, err
	}
	defer unlock()
	f, err := open(ctx, p)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if lacks, err := f.lacksPreload(); err != nil || !lacks {
		return false, err
	}
	for _, ethernet := range []bool{true, false} {
		for _, name := range preloadedPrograms {
			path := preloaded(p.Policy(), ethernet, name)
			if _, err := os.Stat(path); err == nil {
				continue
			}
			return true, f.preload(path, ethernet, name)
		}
	}
	return false, nil
}

// lacksPreload tells whether an interface is waited for that has no programs of its own.
func (f *Filter) lacksPreload() (bool, error) {
	names, err := f.pins.Interfaces()
	if err != nil {
		return false, err
	}
	for _, name := range names {
		_, err := os.Stat(pin.Program(f.pins.Policy(), name, pin.Out))
		if _, missing := host.Device(name); errors.Is(missing, host.ErrNoDevice) && err != nil {
			return true, nil
		}
	}
	return false, nil
}

func (f *Filter) preload(path string, ethernet bool, name string) error {
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
	return hook.PinProgram(prog, path)
}
