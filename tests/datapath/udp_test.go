// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// Cases 45 to 48.
func TestUDP(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		query := []step{sent(w.out(frame.UDP{SrcPort: 40000, DstPort: 53}, frame.Text("who?")))}
		answer := frame.UDP{SrcPort: 53, DstPort: 40000}
		said := func(n uint16) frame.UDP {
			u := answer
			u.Length = frame.Exactly(n)
			return u
		}
		unsummed := answer
		unsummed.Checksum = frame.Exactly(0)
		short := func(port uint16, n int) []byte {
			return framed(w.number(w.peer, w.us, frame.ProtoUDP),
				[]frame.Layer{frame.Raw(w.transport(w.peer, w.us, udp(port))[:n])})
		}
		group := addr("224.0.0.251")
		if w.family == 6 {
			group = addr("ff02::fb")
		}
		open := func(length uint16) []byte {
			return w.in(frame.UDP{SrcPort: 5, DstPort: 53, Length: frame.Exactly(length)})
		}
		mdns := frame.UDP{SrcPort: 5353, DstPort: 5353}
		return []arrival{
			{name: "an answer", before: query, frame: w.in(answer, frame.Text("me")), want: established},
			{name: "an empty answer", before: query, frame: w.in(answer), want: established},
			{name: "an answer without a checksum", before: query, frame: w.in(unsummed), want: established},
			{name: "an answer without a query", frame: w.in(answer), want: closedPort},
			{name: "an answer to another port", before: query,
				frame: w.in(frame.UDP{SrcPort: 53, DstPort: 40001}), want: closedPort},
			{name: "an answer from another port", before: query,
				frame: w.in(frame.UDP{SrcPort: 54, DstPort: 40000}), want: closedPort},
			{name: "an answer from another address", before: query, frame: w.from(w.stranger, answer), want: closedPort},
			{name: "an answer in UDP-Lite", before: query,
				frame: w.in(frame.UDPLite{SrcPort: 53, DstPort: 40000}), want: closedPort},
			{name: "an answer in TCP", before: query,
				frame: w.in(frame.TCP{SrcPort: 53, DstPort: 40000, Flags: frame.ACK}), want: closedPort},
			{name: "an answer that comes too late", before: after(query, waited(31*time.Second)),
				frame: w.in(answer), want: closedPort},
			{name: "an answer whose length is 7", before: query, frame: w.in(said(7)), want: invalid.of(wrongLength)},
			{name: "an answer whose length is 0", before: query, frame: w.in(said(0)), want: invalid.of(wrongLength)},
			{name: "an answer whose length is beyond the packet", before: query, frame: w.in(said(9)), want: invalid.of(wrongLength)},
			{name: "an answer whose length is less than the packet", before: query,
				frame: w.in(said(9), frame.Text("abc")), want: established},
			{name: "a length of 7 to an open port, where netfilter only logs", frame: open(7), want: rule("53/udp").of(wrongLength)},
			{name: "a length beyond the packet to an open port", frame: open(100), want: rule("53/udp").of(wrongLength)},
			{name: "a header of 7 bytes to an open port", frame: short(53, 7), want: rule("53/udp").of(badHeader)},
			{name: "a header of 7 bytes to a closed port", frame: short(54, 7), want: invalid.of(badHeader)},
			{name: "a header of 3 bytes to an open port", frame: short(53, 3), want: badTransport},
			{name: "no header", frame: short(53, 0), want: badTransport},
			{name: "the answer of one host to a multicast query",
				before: []step{sent(framed(w.ip(w.us, group), []frame.Layer{mdns}))}, frame: w.in(mdns), want: closedPort},
			{name: "a later answer of a stream", frame: w.in(answer), want: established,
				before: after(query, received(w.in(answer)), waited(3*time.Second), received(w.in(answer)), waited(100*time.Second))},
		}
	})
}

func TestDHCPAnswersReachTheClient(t *testing.T) {
	offer := func(src, dst string, sport, dport uint16) []byte {
		return frame.Build(frame.Ethernet{Dst: frame.Broadcast}, frame.IPv4{Src: addr(src), Dst: addr(dst)},
			frame.UDP{SrcPort: sport, DstPort: dport}, frame.Raw(make([]byte, 240)))
	}
	six := worlds[1]
	arrive(t, load(t, testdp.Options{Policy: server}), []arrival{
		{name: "an offer to everybody", frame: offer("192.0.2.254", "255.255.255.255", 67, 68), want: dhcp},
		{name: "an offer to the address it offers", frame: offer("192.0.2.254", "192.0.2.77", 67, 68), want: dhcp},
		{name: "something else to the client's port", frame: offer("192.0.2.254", "192.0.2.1", 68, 68), want: closedPort},
		{name: "something else from the server's port", frame: offer("192.0.2.254", "192.0.2.1", 67, 69), want: closedPort},
		{name: "a client's question", frame: offer("0.0.0.0", "255.255.255.255", 68, 67), want: closedPort},
		{name: "the same ports in TCP", want: closedPort,
			frame: worlds[0].in(frame.TCP{SrcPort: 67, DstPort: 68, Flags: frame.SYN})},
		{name: "the same ports in IPv6", frame: six.in(frame.UDP{SrcPort: 67, DstPort: 68}), want: closedPort},
		{name: "DHCPv6, which asks from a socket, as an answer",
			frame: six.in(frame.UDP{SrcPort: 547, DstPort: 546}), want: closedPort},
	})
}

func TestSCTPAndUDPLite(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		init := []step{sent(w.out(frame.SCTP{SrcPort: 40000, DstPort: 3868, Chunk: frame.ChunkInit}))}
		in := func(chunk uint8) []byte { return w.in(frame.SCTP{SrcPort: 3868, DstPort: 40000, Chunk: chunk}) }
		lite := []step{sent(w.out(frame.UDPLite{SrcPort: 40000, DstPort: 53}))}
		short := func(port uint16, n int) []byte {
			part := w.transport(w.peer, w.us, frame.SCTP{SrcPort: 1, DstPort: port, Chunk: frame.ChunkInit})
			return framed(w.number(w.peer, w.us, frame.ProtoSCTP), []frame.Layer{frame.Raw(part[:n])})
		}
		return []arrival{
			{name: "an INIT-ACK for our INIT", before: init, frame: in(frame.ChunkInitAck), want: established},
			{name: "an ABORT for our INIT", before: init, frame: in(frame.ChunkAbort), want: established},
			{name: "an INIT-ACK for nothing", frame: in(frame.ChunkInitAck), want: closedPort},
			{name: "an INIT-ACK from another address", before: init, want: closedPort,
				frame: w.from(w.stranger, frame.SCTP{SrcPort: 3868, DstPort: 40000, Chunk: frame.ChunkInitAck})},
			{name: "data after our ABORT", want: established, before: after(init, received(in(frame.ChunkInitAck)),
				sent(w.out(frame.SCTP{SrcPort: 40000, DstPort: 3868, Chunk: frame.ChunkAbort}))), frame: in(frame.ChunkData)},
			{name: "data eleven seconds after our ABORT", want: closedPort, before: after(init, received(in(frame.ChunkInitAck)),
				sent(w.out(frame.SCTP{SrcPort: 40000, DstPort: 3868, Chunk: frame.ChunkAbort})), waited(11*time.Second)), frame: in(frame.ChunkData)},
			{name: "a header without a chunk to an open port", frame: short(5000, 12), want: rule("5000/sctp").of(badHeader)},
			{name: "a header without a chunk to a closed port", frame: short(5001, 12), want: invalid.of(badHeader)},
			{name: "half of the ports", frame: short(5000, 3), want: badTransport},
			{name: "a UDP-Lite answer", before: lite,
				frame: w.in(frame.UDPLite{SrcPort: 53, DstPort: 40000}), want: established},
			{name: "a UDP answer to UDP-Lite", before: lite,
				frame: w.in(frame.UDP{SrcPort: 53, DstPort: 40000}), want: closedPort},
		}
	})
}

// Case 53: protocols without ports belong to a pair of hosts.
func TestProtocolsWithoutPorts(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		var cases []arrival
		for name, number := range map[string]uint8{
			"GRE": frame.ProtoGRE, "ESP": frame.ProtoESP, "AH": frame.ProtoAH, "IP in IP": frame.ProtoIPIP,
			"IPv6 in IP": frame.Proto6in4, "OSPF": frame.ProtoOSPF, "VRRP": frame.ProtoVRRP, "IGMP": frame.ProtoIGMP,
			"protocol 255": 255,
		} {
			body := []frame.Layer{frame.Raw(make([]byte, 32))}
			out := sent(framed(w.number(w.us, w.peer, number), body))
			in := framed(w.number(w.peer, w.us, number), body)
			cases = append(cases,
				arrival{name: name + " that nobody asked for", frame: in, want: protocol},
				arrival{name: name + " after ours", before: []step{out}, frame: in, want: established},
				arrival{name: name + " after ours to somebody else", before: []step{out},
					frame: framed(w.number(w.stranger, w.us, number), body), want: protocol})
		}
		return cases
	})
}
