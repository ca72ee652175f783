// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"regexp"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Guests is a device behind which containers or virtual machines of this host are, and to which it routes.
type Guests struct {
	Device  string
	Manager string // Docker, libvirt and so on, or "" when the name does not tell
}

func (g Guests) String() string {
	if g.Manager == "" {
		return quote.Name(g.Device)
	}
	return fmt.Sprintf("%s (%s)", quote.Name(g.Device), g.Manager)
}

// FindGuests returns the devices of containers and virtual machines. A bridge that a device of this host's own is a port
// of is none: its guests are reached past this host's routing.
func FindGuests() ([]Guests, error) {
	links, err := completeLinks()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return guestsAmong(links), nil
}

func guestsAmong(links []netlink.Link) (out []Guests) {
	for _, l := range links {
		if manager := managerOf(l.Attrs().Name); isGuestBridge(l, links) || l.Type() != "bridge" && manager != "" && isGuestPort(l) {
			out = append(out, Guests{l.Attrs().Name, manager})
		}
	}
	return out
}

// isGuestBridge reports whether all ports of a bridge belong to guests. One without ports does when its name tells.
func isGuestBridge(bridge netlink.Link, links []netlink.Link) bool {
	if bridge.Type() != "bridge" {
		return false
	}
	guests := managerOf(bridge.Attrs().Name) != ""
	for _, l := range links {
		if l.Attrs().MasterIndex != bridge.Attrs().Index {
			continue
		}
		if !isGuestPort(l) {
			return false
		}
		guests = true
	}
	return guests
}

// isGuestPort reports whether the other end of a device is a guest: a container in another network namespace, or what
// holds a tap.
func isGuestPort(l netlink.Link) bool {
	switch l.Type() {
	case "veth", "netkit":
		return l.Attrs().NetNsID >= 0
	case "tuntap", "tun", "macvtap":
		return true
	}
	return l.Attrs().Name == "virbr0-nic" // keeps the MAC address of libvirt's bridge
}

// manager gives devices of guests names of a pattern.
type manager struct {
	device *regexp.Regexp
	name   string
}

// managers are compiled when they are first needed: most commands start without.
var managers = sync.OnceValue(func() (list []manager) {
	for _, m := range []struct{ device, name string }{
		{`^(docker\d+|docker_gwbridge|br-[0-9a-f]{12})$`, "Docker"},
		{`^(podman|cni-podman)\d+$`, "Podman"},
		{`^cni\d+$`, "Kubernetes"},
		{`^virbr\d+$`, "libvirt"},
		{`^lxcbr\d+$`, "LXC"},
		{`^(lxdbr|incusbr)\d+$`, "Incus or LXD"},
		{`^cali[0-9a-f]{11}$`, "Calico"},
		{`^lxc[0-9a-f]{12}$`, "Cilium"},
	} {
		list = append(list, manager{regexp.MustCompile(m.device), m.name})
	}
	return list
})

func managerOf(device string) string {
	for _, m := range managers() {
		if m.device.MatchString(device) {
			return m.name
		}
	}
	return ""
}
