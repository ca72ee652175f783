// SPDX-License-Identifier: Apache-2.0

package bench

import "fmt"

// scene is what a firewall is set up with: how many ports are open, how many flows live, and what openPort is open to.
type scene struct {
	ports, flows int
	sources      int  // that may use openPort, at another address than the stand's: none of them is let in; 0: anybody
	limited      bool // openPort has a limit for each source
	interfaces   int  // that are filtered beside the stand's, each with rules of its own
	blocked      int  // addresses on a block list: see scatteredSources
}

func (s scene) String() string {
	text := fmt.Sprintf("%s, %s", count(s.ports, "open port"), count(s.flows, "flow"))
	if s.sources > 0 {
		text += fmt.Sprintf(", %s", count(s.sources, "allowed source"))
	}
	if s.limited {
		text += ", a limit"
	}
	if s.blocked > 0 {
		text += fmt.Sprintf(", %s", count(s.blocked, "blocked address"))
	}
	if s.interfaces > 0 {
		text += fmt.Sprintf(", %s more", count(s.interfaces, "interface"))
	}
	return text
}

// rules of the scene. The first port is openPort; the others lie as far apart as they can, beyond the closed one.
func (s scene) rules(protocol uint8) rules {
	r := rules{protocol: protocol, ports: []uint16{openPort}, flows: s.flows, sources: s.sources, limited: s.limited, interfaces: s.interfaces, blocked: s.blocked}
	const from, room = 1024, 60000
	for i := range s.ports - 1 {
		r.ports = append(r.ports, uint16(from+i*(room/s.ports)))
	}
	return r
}

// work is one kind of traffic, in a scene.
type work struct {
	key, title string
	scene      scene
	fate       fate
	traffic    traffic
	tcpOnly    bool   // pktgen cannot send it
	curve      string // that it is a point of
	x          int    // its place there
	onlyCurve  bool   // it is nothing else
}

// Curves, by what grows.
const (
	curvePorts = "ports"
	curveFlows = "flows"
)

// baseline is the subject that a fate is measured against.
func (f fate) baseline() string {
	if f == dropped || f == refused || f == blocked {
		return keyDrop
	}
	return keyPass
}

// packetWorks lists what is sent, in the order of the report.
func packetWorks() []work {
	one, million := scene{ports: 1, flows: 0}, 1000000
	syn := traffic{flags: flagSYN, port: closedPort}
	open := traffic{flags: flagSYN, port: openPort}
	flood := traffic{flags: flagSYN, randomSources: true, randomPorts: true}
	acks := traffic{flags: flagACK, randomSources: true, randomPorts: true}
	list := []work{
		{key: "closed", title: "Closed port, one source", scene: one, traffic: syn, curve: curvePorts, x: 1},
		{key: "closed-random", title: "Closed ports, random sources and ports", scene: one, traffic: flood},
		{key: "ports-10k", title: "Closed port, 10,000 open ports", scene: scene{ports: 10000, flows: 0}, traffic: syn, curve: curvePorts, x: 10000},
		{key: "spoofed-syn-1m", title: "Spoofed SYN flood, random ports, 1M flows", scene: scene{ports: 1, flows: million}, traffic: flood, tcpOnly: true},
		{key: "spoofed-ack-1m", title: "Spoofed ACK flood, random ports, 1M flows", scene: scene{ports: 1, flows: million}, traffic: acks, tcpOnly: true},
		{key: "spoofed-ack-10k", title: "Spoofed ACK flood, random ports, 10k flows", scene: scene{ports: 1, flows: 10000}, traffic: acks, tcpOnly: true},
		{key: "interfaces-8", title: "Closed port, 8 interfaces of different rules", scene: scene{ports: 1, interfaces: 7}, traffic: syn},
		{key: "sources-100k", title: "Port with 100,000 allowed sources, random others", scene: scene{ports: 1, sources: 100000}, fate: refused,
			traffic: traffic{flags: flagSYN, port: openPort, randomSources: true}},
		{key: "blocked-clean", title: "Clean random sources, 1M blocked addresses", scene: scene{ports: 1, blocked: million}, tcpOnly: true,
			traffic: traffic{flags: flagSYN, port: closedPort, anywhere: true}},
		{key: "blocked-hit", title: "Random blocked sources, 1M blocked addresses", scene: scene{ports: 1, blocked: million}, fate: blocked, tcpOnly: true,
			traffic: traffic{flags: flagSYN, port: openPort, scattered: million}},
		{key: "limit-flood", title: "SYN flood on a limited port, random sources", scene: scene{ports: 1, limited: true}, fate: opened,
			traffic: traffic{flags: flagSYN, port: openPort, randomSources: true}},
		{key: "open-interfaces-8", title: "Open port, 8 interfaces of different rules", scene: scene{ports: 1, interfaces: 7}, fate: opened, traffic: open},
		{key: "open", title: "Open port, one source", scene: one, fate: opened, traffic: open},
		{key: "syn-flood", title: "SYN flood on an open port, random sources", scene: one, fate: opened,
			traffic: traffic{flags: flagSYN, port: openPort, randomSources: true}},
		{key: "established-1", title: "Established, 1 flow", scene: scene{ports: 1, flows: 1}, fate: established},
		{key: "established-200k", title: "Established, 200k flows at random", scene: scene{ports: 1, flows: 200000}, fate: established,
			curve: curveFlows, x: 200000},
	}
	for _, n := range []int{10, 100, 1000, 60000} {
		list = append(list, work{key: fmt.Sprintf("ports-%d", n), title: fmt.Sprintf("Closed port, %s", count(n, "open port")),
			scene: scene{ports: n, flows: 0}, traffic: syn, curve: curvePorts, x: n, onlyCurve: true})
	}
	for _, n := range []int{1000, 10000, 100000, million} {
		list = append(list, work{key: fmt.Sprintf("established-%d", n), title: fmt.Sprintf("Established, %s at random", count(n, "flow")),
			scene: scene{ports: 1, flows: n}, fate: established, curve: curveFlows, x: n, onlyCurve: true})
	}
	for i := range list {
		w := &list[i]
		if w.fate == established {
			w.traffic = traffic{flags: flagACK, flows: w.scene.flows}
		}
	}
	return list
}
