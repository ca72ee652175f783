// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// describeFrame says in a line what a frame is, as far as it can be read.
func describeFrame(b []byte, ethernet bool) string {
	var first gopacket.LayerType = layers.LayerTypeEthernet
	if !ethernet && len(b) > 0 {
		first = layers.LayerTypeIPv4
		if b[0]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
	}
	p := gopacket.NewPacket(b, first, gopacket.DecodeOptions{NoCopy: true, DecodeStreamsAsDatagrams: true})
	network := p.NetworkLayer()
	if network == nil {
		return fmt.Sprintf("unreadable (%x)", b[:min(len(b), 16)])
	}
	flow := network.NetworkFlow()
	src, dst := flow.Src().String(), flow.Dst().String()
	switch t := transportOf(p).(type) {
	case *layers.TCP:
		return fmt.Sprintf("tcp %s > %s %s", end(src, int(t.SrcPort)), end(dst, int(t.DstPort)), tcpFlags(t))
	case *layers.UDP:
		return fmt.Sprintf("udp %s > %s", end(src, int(t.SrcPort)), end(dst, int(t.DstPort)))
	case *layers.SCTP:
		return fmt.Sprintf("sctp %s > %s", end(src, int(t.SrcPort)), end(dst, int(t.DstPort)))
	case *layers.ICMPv4:
		return fmt.Sprintf("icmp %s > %s type %d code %d", src, dst, t.TypeCode.Type(), t.TypeCode.Code())
	case *layers.ICMPv6:
		return fmt.Sprintf("icmpv6 %s > %s type %d code %d", src, dst, t.TypeCode.Type(), t.TypeCode.Code())
	}
	return fmt.Sprintf("%s %s > %s", protocolOf(network), src, dst)
}

// transportOf returns the transport layer, also one whose header is broken, which the library gives as a failure.
func transportOf(p gopacket.Packet) gopacket.Layer {
	for _, kind := range []gopacket.LayerType{layers.LayerTypeTCP, layers.LayerTypeUDP, layers.LayerTypeSCTP,
		layers.LayerTypeICMPv4, layers.LayerTypeICMPv6} {
		if l := p.Layer(kind); l != nil {
			return l
		}
	}
	return nil
}

func protocolOf(network gopacket.NetworkLayer) string {
	protocol := layers.IPProtocol(0)
	switch ip := network.(type) {
	case *layers.IPv4:
		protocol = ip.Protocol
	case *layers.IPv6:
		protocol = ip.NextHeader
	}
	return strings.ToLower(protocol.String())
}

func end(address string, port int) string { return net.JoinHostPort(address, strconv.Itoa(port)) }

// tcpFlags lists what is set, in the order of the header from its low bit on.
func tcpFlags(t *layers.TCP) string {
	var set []string
	for _, f := range []struct {
		on   bool
		name string
	}{{t.FIN, "fin"}, {t.SYN, "syn"}, {t.RST, "rst"}, {t.PSH, "psh"}, {t.ACK, "ack"}, {t.URG, "urg"}, {t.ECE, "ece"}, {t.CWR, "cwr"}} {
		if f.on {
			set = append(set, f.name)
		}
	}
	if set == nil {
		return "no flags"
	}
	return strings.Join(set, ",")
}
