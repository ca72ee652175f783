// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/pin"
)

// HostChanges is what has changed about the host since the programs were loaded. Up without a policy reloads them.
type HostChanges struct {
	MAC     string // an interface whose MAC address its programs do not know: the filter is right, but slower
	Changed bool   // they know the address that it had before
	MTU     string // an interface whose frames have outgrown its XDP program: large ones may be lost
	Bytes   int    // its MTU
}

// HostChanges returns what has changed about the host.
func (f *Filter) HostChanges() (HostChanges, error) {
	d, err := f.hostChanges()
	return d, permissionError(err)
}

func (f *Filter) hostChanges() (d HostChanges, err error) {
	interfaces, err := f.Interfaces()
	if err != nil {
		return d, err
	}
	for _, i := range interfaces {
		l, err := netlink.LinkByName(i.Name)
		if err != nil || !i.Present {
			continue
		}
		loaded, err := pin.LoadedWith(pin.Program(f.pins.Policy(), i.Name, pin.Out))
		if errors.Is(err, fs.ErrNotExist) {
			continue // see Missing
		}
		if err != nil {
			return d, fmt.Errorf("%s: %w", i.Name, err)
		}
		if loaded.Ethernet && loaded.MAC != host.MAC(l) {
			d.MAC, d.Changed = i.Name, loaded.MAC != [6]byte{}
		}
		if i.Mode != ModeNative || l.Attrs().MTU <= LinearMTU {
			continue
		}
		// A program that was loaded for that MTU has been taken by the driver as it is.
		if loaded, err := pin.LoadedWith(pin.Program(f.pins.Policy(), i.Name, pin.In)); err == nil && loaded.MTU <= LinearMTU {
			d.MTU, d.Bytes = i.Name, l.Attrs().MTU
		}
	}
	return d, nil
}

// SyncHost brings what the datapath knows of this host in line with it: its addresses, by the routing table, and its
// interfaces.
func (f *Filter) SyncHost() error { return permissionError(f.syncHost()) }

func (f *Filter) syncHost() error {
	unlock, err := f.change()
	if err != nil {
		return err
	}
	defer unlock()
	own, shared, err := host.LocalPrefixes()
	if err != nil {
		return err
	}
	if err := f.set.PutLocal(own, shared); err != nil {
		return err
	}
	filtered, err := f.filteredNow()
	if err != nil {
		return err
	}
	return withoutRoom(f.syncInterfaces(filtered))
}
