// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/host"
)

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
