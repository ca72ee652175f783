// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// device is what the kernel tells of an interface.
type device struct {
	Name   string
	Kind   string // as ip -d link has it; "device" is hardware
	Driver string
	MTU    int
	Up     bool
	CPUs   int

	Master, MasterKind string // the bridge or bond that it is a port of
	Parent             string // the device that it stands on, as a VLAN does
	Stacked            []stacked

	Features map[string]ethtool.FeatureState
	Channels channels
	XDP      uint64 // what the driver can do, if XDPKnown
	XDPKnown bool   // the kernel tells, since Linux 6.3

	Hooks    []loader.Hook
	HooksErr error
	Sockets  int         // AF_XDP sockets that are bound to it
	Mode     loader.Mode // in which it is filtered; "" when it is not
	Bypassed bool        // packets come past the program that filters
}

// stacked is a device that stands on another.
type stacked struct{ Name, Kind string }

// channels are the pairs of queues, or those that receive where the driver counts them apart.
type channels struct {
	Kind     string // combined or rx, as ethtool -L has it
	Now, Max int
}

// inspect asks the kernel about an interface.
func inspect(name, pinPath string) (*device, error) {
	l, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, fmt.Errorf("there is no interface %s: \"ip -br link\" lists those that there are", quote.Name(name))
	}
	if err != nil {
		return nil, err
	}
	if l.Attrs().Flags&net.FlagLoopback != 0 {
		return nil, errors.New("the loopback interface is not filtered: what this host sends to itself always passes")
	}
	d := &device{Name: name, Kind: l.Type(), MTU: l.Attrs().MTU, Up: l.Attrs().Flags&net.FlagUp != 0, CPUs: runtime.NumCPU()}
	links, err := host.CompleteList(netlink.LinkList)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	for _, other := range links {
		switch a := other.Attrs(); {
		case a.Index == l.Attrs().MasterIndex:
			d.Master, d.MasterKind = a.Name, other.Type()
		case a.Index == l.Attrs().ParentIndex && l.Type() != "veth":
			d.Parent = a.Name
		case a.ParentIndex == l.Attrs().Index && other.Type() != "veth":
			d.Stacked = append(d.Stacked, stacked{a.Name, other.Type()})
		}
	}
	d.ask()
	d.XDP, d.XDPKnown = xdpFeatures(l.Attrs().Index)
	d.Hooks, d.HooksErr = loader.Hooks(pinPath, name)
	sockets, _ := netlink.SocketDiagXDP() // without CONFIG_XDP_SOCKETS_DIAG nobody knows
	for _, s := range sockets {
		if s.XDPInfo != nil && int(s.XDPInfo.Ifindex) == l.Attrs().Index {
			d.Sockets++
		}
	}
	return d, nil
}

// ask asks the driver. What it does not know stays zero.
func (d *device) ask() {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return
	}
	defer tool.Close()
	d.Driver, _ = tool.DriverName(d.Name)
	d.Features, _ = tool.FeaturesWithState(d.Name)
	if c, err := tool.GetChannels(d.Name); err == nil {
		d.Channels = channels{"combined", int(c.CombinedCount), int(c.MaxCombined)}
		if c.MaxCombined == 0 {
			d.Channels = channels{"rx", int(c.RxCount), int(c.MaxRx)}
		}
	}
}

// Of the generic netlink family "netdev", and features of a driver (enum netdev_xdp_act), of linux/netdev.h.
const (
	netdevGet         = 1
	netdevIndex       = 1
	netdevXDPFeatures = 3

	xdpBasic = 1 << 0
	xdpFrags = 1 << 5
)

// genericHeader is struct genlmsghdr with its reserved bytes, which the kernel wants to be 0: nl.Genlmsg has none, and
// sends what comes after it in memory.
type genericHeader [nl.SizeofGenlmsg]byte

// Len implements nl.NetlinkRequestData.
func (h genericHeader) Len() int { return len(h) }

// Serialize implements nl.NetlinkRequestData.
func (h genericHeader) Serialize() []byte { return h[:] }

// xdpFeatures asks what the driver of an interface can do.
func xdpFeatures(index int) (features uint64, known bool) {
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return 0, false
	}
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	req.AddData(genericHeader{netdevGet, 1})
	req.AddData(nl.NewRtAttr(netdevIndex, nl.Uint32Attr(uint32(index))))
	messages, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil || len(messages) == 0 || len(messages[0]) < nl.SizeofGenlmsg {
		return 0, false
	}
	attrs, err := nl.ParseRouteAttr(messages[0][nl.SizeofGenlmsg:])
	if err != nil {
		return 0, false
	}
	for _, a := range attrs {
		if a.Attr.Type == netdevXDPFeatures && len(a.Value) == 8 {
			return binary.NativeEndian.Uint64(a.Value), true
		}
	}
	return 0, false
}

// nativeDrivers lists, for kernels that do not tell, the drivers that have native XDP in Linux 6.1, as ethtool -i names
// them.
var nativeDrivers = []string{
	"bnxt_en", "bonding", "ena", "fec", "fsl_dpaa2_eth", "fsl_enetc", "gve", "hv_netvsc", "i40e", "ice", "igb", "igc", "ixgbe",
	"ixgbevf", "mana", "mlx4_en", "mlx5_core", "mvneta", "mvpp2", "netsec", "nfp", "nicvf", "qede", "rvu-nicpf", "sfc",
	"st_gmac", "tsnep", "tun", "veth", "vif", "virtio_net",
}

// native reports whether the driver has native XDP.
func (d *device) native() bool {
	if d.XDPKnown {
		return d.XDP&xdpBasic != 0
	}
	return slices.Contains(nativeDrivers, d.Driver)
}

// on reports whether an offload is on, and whether it can be turned off.
func (d *device) on(feature string) (on, changeable bool) {
	f := d.Features[feature]
	return f.Active, f.Available && !f.NeverChanged
}
