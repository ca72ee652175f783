// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/lock"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Down takes the filter off the interfaces, or off all when none is named.
// The context bounds the wait for other commands.
func Down(ctx context.Context, pinPath string, interfaces []string) (*DownReport, error) {
	report, err := down(ctx, pinPath, interfaces)
	return report, permissionError(err)
}

func down(ctx context.Context, pinPath string, interfaces []string) (*DownReport, error) {
	p, err := pin.At(pinPath)
	if err != nil {
		return nil, err
	}
	unlock, err := p.Lock(ctx, lock.Exclusive)
	if err != nil {
		return nil, err
	}
	defer unlock()
	err = checkDown(ctx, p, len(interfaces) == 0)
	if errors.Is(err, ErrOlderSchema) || errors.Is(err, ErrNewerSchema) {
		return downOther(p, interfaces)
	}
	if err != nil {
		return nil, err
	}
	names, err := p.Linked()
	if err != nil {
		return nil, err
	}
	if len(interfaces) == 0 {
		interfaces = names
	} else if interfaces, err = offByPattern(names, interfaces); err != nil {
		return nil, err
	}
	report := newDownReport(interfaces, names)
	var errs []error
	if len(report.Remaining) > 0 {
		synced, err := distrust(ctx, p, interfaces)
		if err != nil {
			return nil, err // nobody would judge what comes in by them
		}
		errs = append(errs, synced)
	}
	for _, name := range interfaces {
		errs = append(errs, release(p, name))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	report.Others = otherInstances(p)
	if len(report.Remaining) == 0 {
		return report, p.Remove()
	}
	return report, nil
}

// distrust makes what comes in by interfaces, and is routed, count as not judged, before nobody judges it any more. Then
// it brings the list in line with the host; synced says why that failed, which is no reason to go on filtering.
func distrust(ctx context.Context, p pin.Dir, interfaces []string) (synced, err error) {
	f, err := openFinished(ctx, p)
	if err != nil {
		return nil, nil // no filter knows of them
	}
	defer f.Close()
	filtered, unknown := f.filteredNow()
	filtered = slices.DeleteFunc(filtered, func(name string) bool { return slices.Contains(interfaces, name) })
	if unknown != nil {
		filtered = nil
	}
	if err := distrustAllBut(f.set, filtered); err != nil || unknown != nil {
		return unknown, err
	}
	return f.syncInterfaces(filtered), nil
}

// distrustAllBut takes for judged what meets the filter on the given interfaces alone; nothing, where that is not known.
func distrustAllBut(set *maps.Set, filtered []string) error {
	list, err := readInterfaces(filtered)
	if err != nil {
		list = nil
	}
	return set.Distrust(list)
}

// checkDown finds out whether there is a filter to take off here. What is missing or broken does not matter then: no
// damage may keep a host closed.
func checkDown(ctx context.Context, p pin.Dir, all bool) error {
	if _, err := os.Stat(p.Root()); errors.Is(err, fs.ErrNotExist) {
		return p.NotRunning("nothing is pinned at " + p.Base)
	}
	if err := p.CheckOwner(); err != nil {
		return err
	}
	if unfinished, err := isUnfinished(p); err == nil && unfinished {
		f, err := open(ctx, p)
		if err == nil {
			return f.Close()
		}
		if !all && !errors.Is(err, ErrDamaged) {
			return err
		}
	}
	f, err := openFinished(ctx, p)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, ErrNotRunning), errors.Is(err, ErrOtherNamespace), errors.Is(err, ErrOlderSchema), errors.Is(err, ErrNewerSchema):
		return err
	}
	return checkNamespace(p)
}

// takeOff takes off all that is on an interface, and forgets how it was filtered.
func takeOff(p pin.Dir, name string) error {
	var errs []error
	for _, a := range p.Attachments(name, slices.Concat(hook.Ingress, hook.Egress)) {
		errs = append(errs, a.Detach())
	}
	if device, err := host.Device(name); err == nil {
		errs = append(errs, hook.RemoveLeftovers(p.Link(name), name, device.Attrs().Index))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return forget(p, name)
}

// forget forgets how an interface was filtered: the programs first, or its links would be missed.
func forget(p pin.Dir, name string) error {
	if err := p.RemovePrograms(name); err != nil {
		return err
	}
	return os.RemoveAll(p.Link(name))
}

// otherInstances returns the filters under other pin paths that are on interfaces of this network namespace.
func otherInstances(p pin.Dir) (others []Instance) {
	for _, other := range p.Others() {
		names, err := other.Interfaces()
		if err != nil {
			continue
		}
		instance := Instance{PinPath: other.Base, Interfaces: []string{}}
		for _, name := range names {
			device, err := host.Device(name)
			if err != nil {
				continue
			}
			a := other.Attachment(name, hook.Ingress)
			if a == nil {
				continue
			}
			if here, err := a.IsOnHost(device); err == nil && here {
				instance.Interfaces = append(instance.Interfaces, name)
			}
		}
		if len(instance.Interfaces) > 0 {
			others = append(others, instance)
		}
	}
	return others
}

// newDownReport returns what it means to take the filter off interfaces, of all that are filtered.
func newDownReport(off, filtered []string) *DownReport {
	r := &DownReport{Interfaces: off, Remaining: []string{}, Absent: []string{}, Behind: make(map[string]string)}
	for _, name := range filtered {
		if !slices.Contains(off, name) {
			r.Remaining = append(r.Remaining, name)
		}
		if policy.IsPattern(name) {
			r.Patterns = append(r.Patterns, name)
		} else if _, err := host.Device(name); errors.Is(err, host.ErrNoDevice) {
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
