// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"encoding/binary"
	"math/bits"
	"net"
	"net/netip"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"github.com/portcullis-firewall/portcullis/policy"
)

// field is the part of a packet that a rule has loaded to compare it.
type field int

const (
	otherField field = iota
	protocolField
	destinationField
	portField
)

// decoder reads the expressions of one rule. What it does not know, such as a match on an interface, it takes as
// matched: the rule may then publish a port to fewer than it tells, but never hides one.
type decoder struct {
	tables    *tables
	table     *nftables.Table
	match     match
	registers map[uint32][]byte
	field     field
	bits      int    // of the destination that are compared
	next      string // the chain that the rule calls
	to        string // where it sends
}

// Where headers keep what is matched (RFC 791, RFC 8200, and the first four bytes of every transport header).
const (
	protocolOffset4    = 9
	destinationOffset4 = 16
	destinationOffset6 = 24
	portOffset         = 2
)

func (d *decoder) read(e expr.Any) error {
	switch e := e.(type) {
	case *expr.Meta:
		d.field = otherField
		if e.Key == expr.MetaKeyL4PROTO {
			d.field = protocolField
		}
	case *expr.Payload:
		d.load(e)
	case *expr.Bitwise:
		d.bits = 0
		for _, b := range e.Mask {
			d.bits += bits.OnesCount8(b)
		}
	case *expr.Cmp:
		d.compare(e)
	case *expr.Range:
		if e.Op == expr.CmpOpEq && d.field == portField {
			d.match.ports = [][2]uint16{{port(e.FromData), port(e.ToData)}}
		}
	case *expr.Lookup:
		if d.field == portField && !e.Invert && !e.IsDestRegSet {
			var err error
			d.match.ports, err = d.tables.ports(d.table, e.SetName)
			return err
		}
	case *expr.Immediate:
		d.registers[e.Register] = e.Data
	case *expr.Verdict:
		if e.Kind == expr.VerdictJump || e.Kind == expr.VerdictGoto {
			d.next = e.Chain
		}
	case *expr.Match:
		switch info := e.Info.(type) {
		case *xt.Tcp:
			d.match.ports = [][2]uint16{info.DstPorts}
		case *xt.Udp:
			d.match.ports = [][2]uint16{info.DstPorts}
		}
	case *expr.NAT:
		if e.Type == expr.NATTypeDestNAT {
			d.send(d.registers[e.RegAddrMin], port(d.registers[e.RegProtoMin]))
		}
	case *expr.Redir:
		d.send(nil, port(d.registers[e.RegisterProtoMin]))
	case *expr.Target:
		switch info := e.Info.(type) {
		case *xt.NatRange:
			d.send(info.MinIP, info.MinPort)
		case *xt.NatRange2:
			d.send(info.MinIP, info.MinPort)
		case *xt.NatIPv4MultiRangeCompat:
			if (e.Name == "DNAT" || e.Name == "REDIRECT") && len(*info) > 0 {
				d.send((*info)[0].MinIP, (*info)[0].MinPort)
			}
		}
	}
	return nil
}

func (d *decoder) load(e *expr.Payload) {
	d.field, d.bits = otherField, int(e.Len)*8
	ip6 := d.table.Family == nftables.TableFamilyIPv6 || e.Len == net.IPv6len
	switch {
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == portOffset && e.Len == 2:
		d.field = portField
	case e.Base != expr.PayloadBaseNetworkHeader:
	case ip6 && e.Offset == destinationOffset6, !ip6 && e.Offset == destinationOffset4:
		d.field = destinationField
	case !ip6 && e.Offset == protocolOffset4 && e.Len == 1:
		d.field = protocolField
	}
}

func (d *decoder) compare(e *expr.Cmp) {
	switch {
	case d.field == portField && e.Op == expr.CmpOpEq:
		d.match.ports = [][2]uint16{{port(e.Data), port(e.Data)}}
	case d.field == portField && e.Op == expr.CmpOpGte:
		d.match.ports = [][2]uint16{{port(e.Data), 65535}}
	case d.field == portField && e.Op == expr.CmpOpLte && len(d.match.ports) == 1:
		d.match.ports = [][2]uint16{{d.match.ports[0][0], port(e.Data)}}
	case e.Op != expr.CmpOpEq:
	case d.field == protocolField && len(e.Data) == 1:
		d.match.protocol = policy.Protocol(e.Data[0])
	case d.field == destinationField:
		// A prefix of whole bytes is compared as that many bytes.
		whole := make([]byte, net.IPv4len)
		if len(e.Data) > net.IPv4len || d.table.Family == nftables.TableFamilyIPv6 {
			whole = make([]byte, net.IPv6len)
		}
		copy(whole, e.Data)
		addr, _ := netip.AddrFromSlice(whole)
		d.match.destination = netip.PrefixFrom(addr, d.bits)
	}
}

func (d *decoder) send(address []byte, port uint16) {
	if addr, ok := netip.AddrFromSlice(address); ok && !addr.IsUnspecified() {
		d.to = addr.Unmap().String()
		if port != 0 {
			d.to = netip.AddrPortFrom(addr.Unmap(), port).String()
		}
		return
	}
	d.to = "this host"
	if port != 0 {
		d.to = "port " + strconv.Itoa(int(port))
	}
}

func port(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// ports lists the elements of a set of ports. One of intervals holds their ends, each as an element, in no order.
func (t *tables) ports(table *nftables.Table, name string) ([][2]uint16, error) {
	k := keyOf(table, name)
	if ports, ok := t.sets[k]; ok {
		return ports, nil
	}
	set, err := t.conn.GetSetByName(table, name)
	if err != nil {
		return nil, err
	}
	elements, err := t.conn.GetSetElements(set)
	if err != nil {
		return nil, err
	}
	var ends [1 << 16]bool
	var starts []uint16
	for _, e := range elements {
		switch {
		case len(e.Key) != 2:
			return nil, nil // of something else
		case e.IntervalEnd:
			ends[port(e.Key)] = true
		default:
			starts = append(starts, port(e.Key))
		}
	}
	var out [][2]uint16
	for _, first := range starts {
		last := first
		for set.Interval && last < 65535 && !ends[last+1] {
			last++
		}
		out = append(out, [2]uint16{first, last})
	}
	t.sets[k] = out
	return out, nil
}
