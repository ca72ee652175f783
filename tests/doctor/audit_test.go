// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/audit"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// listen opens a socket on the server for as long as the test lasts, on one of its devices if that is named.
func (p *patient) listen(kind, protocol int, address, device string) {
	p.t.Helper()
	p.Server.Do(p.t, func() error {
		at := netip.MustParseAddrPort(address)
		var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
		family := unix.AF_INET6
		if at.Addr().Is4() {
			to, family = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}, unix.AF_INET
		}
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return fmt.Errorf("protocol %d: %w", protocol, err)
		}
		p.t.Cleanup(func() { unix.Close(fd) })
		if device != "" {
			if err := unix.BindToDevice(fd, device); err != nil {
				return err
			}
		}
		if err := unix.Bind(fd, to); err != nil || kind == unix.SOCK_DGRAM {
			return err
		}
		return unix.Listen(fd, 1)
	})
}

func (p *patient) tcp(address string) {
	p.t.Helper()
	p.listen(unix.SOCK_STREAM, unix.IPPROTO_TCP, address, "")
}

func (p *patient) udp(address string) {
	p.t.Helper()
	p.listen(unix.SOCK_DGRAM, unix.IPPROTO_UDP, address, "")
}

// audit returns what audit finds by port.
func (p *patient) audit() map[string]audit.Entry {
	p.t.Helper()
	out := p.print("portcullis audit -o json --config " + p.config)
	if strings.Contains(out, "null") {
		p.t.Errorf("there is a null in the JSON: %s", out)
	}
	var view struct{ Ports []audit.Entry }
	if err := json.Unmarshal([]byte(out), &view); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	ports := map[string]audit.Entry{}
	for _, e := range view.Ports {
		if _, twice := ports[e.Port]; twice {
			p.t.Errorf("%s is there twice", e.Port)
		}
		ports[e.Port] = e
	}
	return ports
}

// line writes an entry as STATE PORT ADDRESSES FROM RULES.
func line(e audit.Entry) string {
	return fmt.Sprint(e.State, " ", e.Port, " ", e.Addresses, e.From, e.Rules)
}

func same(t *testing.T, got map[string]audit.Entry, want ...string) {
	t.Helper()
	for _, w := range want {
		if e := got[strings.Fields(w)[1]]; line(e) != w {
			t.Errorf("got %s, want %s", line(e), w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d ports, want %d: %+v", len(got), len(want), got)
	}
}

// Sockets of every protocol and family, against what is open, and what each remedy does.
func TestAudit(t *testing.T) {
	p := newPatient(t)
	p.write("interfaces: [eth0]\nopen: [80/tcp, 22/tcp from 192.0.2.0/24, '22/tcp from 2001:db8::/32', 8000-8010/tcp, 443/tcp from 192.0.2.7, 60000-61000/udp]\n")
	p.must("sysctl -qw net.ipv4.ip_local_port_range='32768 60999'")
	for _, address := range []string{"[::]:80", lab.ServerV4.String() + ":22", "[" + lab.ServerV6.String() + "]:22", "127.0.0.1:8000", "[::1]:8000", "[::]:5432"} {
		p.tcp(address)
	}
	// 40000 is a port of clients; 60001 is one too, but open.
	for _, address := range []string{"0.0.0.0:53", "127.0.0.53:54", "0.0.0.0:68", "[::]:546", "0.0.0.0:40000", "0.0.0.0:60001", "0.0.0.0:61500", "0.0.0.0:5432"} {
		p.udp(address)
	}
	p.listen(unix.SOCK_DGRAM, unix.IPPROTO_UDP, "0.0.0.0:55", "lo")
	udplite := []string{}
	if p.hasUDPLite() {
		p.listen(unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, "0.0.0.0:7000", "")
		p.listen(unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, "[::]:7001", "")
		udplite = []string{"closed 7000/udplite [*] [] []", "closed 7001/udplite [*] [] []"}
	}
	for network, local := range map[string]string{"tcp": "127.0.0.1:1234", "udp": "192.0.2.1:1234"} { // a client does not listen
		p.Server.Do(t, func() error {
			at := netip.MustParseAddrPort(local)
			var from net.Addr = net.TCPAddrFromAddrPort(at)
			if network == "udp" {
				from = net.UDPAddrFromAddrPort(at)
			}
			c, err := (&net.Dialer{LocalAddr: from}).Dial(network, at.Addr().String()+":80")
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		})
	}

	want := append(udplite,
		"open 80/tcp [*] [*] [80/tcp]",
		"open 22/tcp [192.0.2.1 2001:db8::1] [192.0.2.0/24 2001:db8::/32] [22/tcp from 192.0.2.0/24 22/tcp from 2001:db8::/32]",
		"unused 8000-8010/tcp [] [*] [8000-8010/tcp]",
		"unused 443/tcp [] [192.0.2.7] [443/tcp from 192.0.2.7]",
		"closed 5432/tcp [*] [] []",
		"closed 53/udp [*] [] []",
		"closed 5432/udp [*] [] []",
		"closed 61500/udp [*] [] []",
		"closed 546/udp [*] [] []",
		"open 60001/udp [*] [*] [60000-61000/udp]",
	)
	// Before up nothing is closed, and of what the policy would close or restrict it is said how.
	up := "portcullis --pin-path " + p.PinPath + " up --config " + p.config
	for port, e := range p.audit() {
		closes := port != "80/tcp" && port != "60001/udp" && e.State != audit.Unused
		if e.State == audit.Closed || e.State == audit.Open && !slices.Equal(e.From, []string{"*"}) || (e.Fix == up) != closes {
			t.Errorf("nothing runs, and audit says %s (%q)", line(e), e.Fix)
		}
	}
	if text := p.print("portcullis audit --config " + p.config); !strings.Contains(text, "anyone can reach what listens") {
		t.Error(text)
	}
	p.must("portcullis up --config " + p.config)
	got := p.audit()
	same(t, got, want...)
	comm, _ := os.ReadFile("/proc/self/comm")
	if e := got["5432/tcp"]; len(e.Processes) != 1 || e.Processes[0] != strings.TrimSpace(string(comm)) {
		t.Errorf("the process of 5432/tcp: %q", e.Processes)
	}

	for _, port := range []string{"5432/tcp", "546/udp", "443/tcp", "8000-8010/tcp"} {
		if got[port].Fix == "" {
			t.Errorf("%s: no fix", port)
		}
		p.must(got[port].Fix)
	}
	same(t, p.audit(), append(udplite,
		"open 80/tcp [*] [*] [80/tcp]",
		"open 22/tcp [192.0.2.1 2001:db8::1] [192.0.2.0/24 2001:db8::/32] [22/tcp from 192.0.2.0/24 22/tcp from 2001:db8::/32]",
		"open 5432/tcp [*] [*] [5432/tcp]",
		"closed 53/udp [*] [] []",
		"closed 5432/udp [*] [] []",
		"closed 61500/udp [*] [] []",
		"open 546/udp [*] [fe80::/10] [546/udp from fe80::/10]",
		"open 60001/udp [*] [*] [60000-61000/udp]",
	)...)

	p.write("interfaces: [eth0]\ninput: accept\n")
	p.must("portcullis up")
	if e := p.audit()["53/udp"]; line(e) != "open 53/udp [*] [*] []" {
		t.Error(line(e))
	}
}

// hasUDPLite tells whether the kernel has it; Linux is about to give it up.
func (p *patient) hasUDPLite() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDPLITE)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// SCTP has a listening state as TCP has.
func TestAuditOfSCTP(t *testing.T) {
	p := newPatient(t)
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP); err != nil {
		t.Skipf("this kernel has no SCTP: %v", err)
	} else {
		unix.Close(fd)
	}
	p.listen(unix.SOCK_STREAM, unix.IPPROTO_SCTP, "0.0.0.0:2905", "")
	same(t, p.audit(), "open 2905/sctp [*] [*] []", "unused 80/tcp [] [*] [80/tcp]")
}

// The ports of containers are ports of this host, whether a proxy listens for them or netfilter alone knows them.
func TestAuditOfContainers(t *testing.T) {
	p := newPatient(t)
	p.write("interfaces: [eth0]\nopen: [8080/tcp, 9000/tcp]\n")
	p.must(docker("iptables",
		"! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
		"! -i docker0 -p udp -m udp --dport 5353 -j DNAT --to-destination 172.17.0.2:53",
		"-d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 9000 -j DNAT --to-destination 172.17.0.2:9000",
		"-d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 172.17.0.2:443")...)
	p.tcp("0.0.0.0:8080")
	p.must("portcullis up --config " + p.config)
	got := p.audit()
	same(t, got, "open 8080/tcp [*] [*] [8080/tcp]", "closed 5353/udp [*] [] []", "unused 9000/tcp [] [*] [9000/tcp]")
	if e := got["8080/tcp"]; !strings.Contains(strings.Join(e.Processes, " "), "to 172.17.0.2:80") || len(e.Processes) != 2 {
		t.Errorf("processes of 8080/tcp: %q", e.Processes)
	}
}

// Without root nobody sees what is in force, nor what others listen on, so nothing is said of it.
func TestLooksNeedRoot(t *testing.T) {
	p := newPatient(t)
	p.tcp("0.0.0.0:81")
	p.must("portcullis up --config " + p.config)
	for _, command := range []string{"audit", "doctor", "audit -o json", "doctor -o json"} {
		out := p.print("cd / && setpriv --reuid=65534 --regid=65534 --clear-groups portcullis " + command + " 2>&1; echo exit $?")
		if !strings.HasPrefix(out, "portcullis: this needs root") || !strings.HasSuffix(out, "\nexit 1\n") || strings.Count(out, "\n") != 2 {
			t.Errorf("%s: %s", command, out)
		}
	}
}
