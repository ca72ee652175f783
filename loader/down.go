// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
)

// Down takes the filter off the interfaces, or off all when none is named.
func Down(pinPath string, interfaces []string) (*DownReport, error) {
	return DownContext(patience(), pinPath, interfaces)
}

// DownContext is Down with a context, which bounds the wait for other commands.
func DownContext(ctx context.Context, pinPath string, interfaces []string) (*DownReport, error) {
	f, err := OpenContext(ctx, pinPath)
	if errors.Is(err, ErrOlderSchema) || errors.Is(err, ErrNewerSchema) {
		return downOther(ctx, pin.Dir{Base: pinPath}, interfaces)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unlock, err := f.change()
	if err != nil {
		return nil, err
	}
	defer unlock()
	names, err := f.pins.Interfaces()
	if err != nil {
		return nil, err
	}
	if len(interfaces) == 0 {
		interfaces = names
	}
	for _, name := range interfaces {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("%s: %w: filtered are %s", name, ErrNotFiltered, strings.Join(names, ", "))
		}
	}
	report := newDownReport(interfaces, names)
	for _, name := range interfaces {
		for _, kinds := range [][]string{hook.Ingress, hook.Egress} {
			if a := f.pins.Attachment(name, kinds); a != nil {
				if err := a.Detach(); err != nil {
					return nil, err
				}
			}
		}
		if err := os.RemoveAll(f.pins.Link(name)); err != nil {
			return nil, err
		}
	}
	if len(report.Remaining) == 0 {
		return report, f.pins.Remove()
	}
	return report, nil
}

// newDownReport tells what it means to take the filter off interfaces, of all that are filtered.
func newDownReport(off, filtered []string) *DownReport {
	r := &DownReport{Interfaces: off, Remaining: []string{}, Absent: []string{}, Behind: make(map[string]string)}
	for _, name := range filtered {
		if !slices.Contains(off, name) {
			r.Remaining = append(r.Remaining, name)
		}
		if _, err := host.Device(name); errors.Is(err, host.ErrNoDevice) {
			r.Absent = append(r.Absent, name)
		}
	}
	for _, name := range off {
		for _, upper := range behind(name) {
			if slices.Contains(r.Remaining, upper) && !slices.Contains(r.Absent, upper) {
				r.Behind[name] = upper
			}
		}
	}
	return r
}

// behind returns the devices on which a filter meets all that comes in for an interface: the bridge or bond that it is
// a port of, and the device that a VLAN or macvlan stands on.
func behind(name string) (names []string) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil
	}
	indices := []int{l.Attrs().MasterIndex}
	if l.Type() != "veth" { // whose parent is its peer
		indices = append(indices, l.Attrs().ParentIndex)
	}
	for _, index := range indices {
		if index == 0 {
			continue
		}
		if upper, err := netlink.LinkByIndex(index); err == nil {
			names = append(names, upper.Attrs().Name)
		}
	}
	return names
}
