// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/audit"
	"github.com/portcullis-firewall/portcullis/firewall/doctor"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

var containerV4 = netip.MustParseAddr("172.17.0.2")

// contain puts a container behind docker0 of the server, and publishes its port 80 as 8080.
func (p *patient) contain() *lab.Host {
	p.t.Helper()
	c := p.AddHost(p.t, "container")
	s := p.Server
	s.IP(p.t, "link", "add", "name", "docker0", "type", "bridge")
	s.IP(p.t, "addr", "add", "172.17.0.1/16", "dev", "docker0")
	s.IP(p.t, "link", "add", "name", "veth1", "type", "veth", "peer", "name", "eth0", "netns", c.Name)
	s.IP(p.t, "link", "set", "veth1", "master", "docker0", "up")
	s.IP(p.t, "link", "set", "docker0", "up")
	c.IP(p.t, "addr", "add", containerV4.String()+"/16", "dev", "eth0")
	c.IP(p.t, "link", "set", "eth0", "up")
	c.IP(p.t, "route", "add", "default", "via", "172.17.0.1")
	s.Sysctl(p.t, "ipv4/ip_forward", "1")
	p.must("nft add table ip docker",
		"nft 'add chain ip docker pre { type nat hook prerouting priority dstnat; }'",
		"nft 'add chain ip docker post { type nat hook postrouting priority srcnat; }'",
		"nft add rule ip docker pre iifname != docker0 tcp dport 8080 dnat to 172.17.0.2:80",
		"nft add rule ip docker post ip saddr 172.17.0.0/16 oifname != docker0 masquerade")
	c.Echo(p.t, 80)
	p.Client.Echo(p.t, 7)
	return c
}

// answers reports whether somebody answers a connection from a host.
func answers(from *lab.Host, to netip.Addr, port uint16) bool {
	return from.Try(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		patience := unix.NsecToTimeval(int64(2 * time.Second))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience); err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrInet4{Port: int(port), Addr: to.As4()})
	}) == nil
}

// warnings returns those of a command in JSON.
func (p *patient) warnings(command string) string {
	p.t.Helper()
	var view struct{ Warnings []string }
	out := p.print(command + " -o json 2>/dev/null")
	if err := json.Unmarshal([]byte(out), &view); err != nil {
		p.t.Fatalf("%s: %v: %s", command, err, out)
	}
	return strings.Join(view.Warnings, "\n")
}

// Containers reach out whatever "forward" says, and their published ports are open when "open" says so. A bridge of
// containers that came after the filter is cut off until somebody looks, and named.
func TestContainers(t *testing.T) {
	p := newPatient(t)
	container := p.contain()
	p.write("interfaces: [eth0]\nopen: [80/tcp]\n")
	if !answers(p.Client, lab.ServerV4, 8080) || !answers(container, lab.ClientV4, 7) {
		t.Fatal("the container is not reached without a filter")
	}
	for _, command := range []string{"check --config " + p.config, "up --config " + p.config, "status"} {
		if text := p.warnings("portcullis " + command); text != "" {
			t.Errorf("%s warns of %s", command, text)
		}
	}
	if text := p.print("portcullis doctor"); !strings.Contains(text, "forward") || strings.Contains(text, "cuts off") {
		t.Error(text)
	}
	if !answers(container, lab.ClientV4, 7) || answers(p.Client, lab.ServerV4, 8080) {
		t.Error("the container does not reach out, or its port is open before a rule says so")
	}
	p.must("portcullis open 8080/tcp")
	if !answers(p.Client, lab.ServerV4, 8080) {
		t.Error("the published port is closed though it was opened")
	}
	p.must("portcullis close 8080/tcp")
	if answers(p.Client, lab.ServerV4, 8080) {
		t.Error("the published port is open though it was closed")
	}

	p.must("portcullis down")
	p.Server.IP(t, "link", "del", "docker0")
	p.must("portcullis up --config " + p.config)
	p.Server.IP(t, "link", "add", "name", "docker0", "type", "bridge")
	p.Server.IP(t, "addr", "add", "172.17.0.1/16", "dev", "docker0")
	p.Server.IP(t, "link", "set", "veth1", "master", "docker0", "up")
	p.Server.IP(t, "link", "set", "docker0", "up")
	late := fmt.Sprintf("docker0: its guests are cut off, as it came or changed after the filter: run \"portcullis --pin-path %[1]s up\", or keep \"portcullis --pin-path %[1]s run\" running", p.PinPath)
	if text := p.warnings("portcullis status"); text != late || answers(container, lab.ClientV4, 7) {
		t.Errorf("status says %q, want %q", text, late)
	}
	p.must("portcullis up --config " + p.config)
	if text := p.warnings("portcullis status"); text != "" || !answers(container, lab.ClientV4, 7) {
		t.Errorf("status still says %q, or up does not help", text)
	}
}

// Where nothing is behind the host, nothing is said.
func TestNoContainers(t *testing.T) {
	p := newPatient(t)
	p.Server.IP(t, "link", "add", "name", "docker0", "type", "bridge")
	for _, command := range []string{"portcullis check --config " + p.config, "portcullis up --config " + p.config, "portcullis status"} {
		if text := p.warnings(command); text != "" {
			t.Errorf("%s warns on a host that does not forward: %s", command, text)
		}
	}
	p.Server.Sysctl(t, "ipv4/ip_forward", "1")
	p.Server.IP(t, "link", "del", "docker0")
	if text := p.warnings("portcullis status"); text != "" {
		t.Errorf("a router without containers: %s", text)
	}
}

// Without a file, a host that forwards goes on to do so.
func TestBuiltInPolicyOfForwardingHost(t *testing.T) {
	if _, err := os.Stat("/etc/portcullis/portcullis.yaml"); err == nil {
		t.Skip("this machine has a policy file")
	}
	p := newPatient(t)
	container := p.contain()
	p.tcp("0.0.0.0:22")
	if text := p.print("portcullis up eth0 2>&1"); !strings.Contains(text, "what is behind this host reaches out") || strings.Contains(text, "cuts off") {
		t.Error(text)
	}
	if !answers(container, lab.ClientV4, 7) {
		t.Error("the container is cut off")
	}
	if text := p.print("portcullis status 2>&1"); !strings.Contains(text, "built in") || !strings.Contains(text, "forward established") {
		t.Error(text)
	}
	p.must("portcullis down")
	p.Server.Sysctl(t, "ipv4/ip_forward", "0")
	if text := p.print("portcullis up eth0 2>&1"); !strings.Contains(text, "nothing is forwarded") {
		t.Error(text)
	}
}

// What comes in by an interface without a filter reaches every port, so no port is called closed there.
func TestUnfilteredInterface(t *testing.T) {
	p := newPatient(t)
	p.AddInside(t)
	p.write("interfaces: [eth0]\nforward: established\nopen: [80/tcp, 443/tcp from 192.0.2.7]\n")
	for _, address := range []string{"0.0.0.0:80", "0.0.0.0:443", "0.0.0.0:5432", "127.0.0.1:6000"} {
		p.tcp(address)
	}
	p.listen(unix.SOCK_STREAM, unix.IPPROTO_TCP, "0.0.0.0:7000", "eth0")
	named := func(command string) {
		t.Helper()
		text := p.print("portcullis " + command + " 2>&1")
		if fix := "portcullis --pin-path " + p.PinPath + " up eth1 --config " + p.config; !strings.Contains(text, "eth1 is not filtered") || !strings.Contains(text, fix) {
			t.Errorf("%s says %s, want eth1 and %q", command, text, fix)
		}
	}
	named("up --config " + p.config)
	named("status --config " + p.config)
	named("audit --config " + p.config)
	got := p.audit()
	same(t, got, "open 80/tcp [*] [*] [80/tcp]", "open 443/tcp [*] [192.0.2.7] [443/tcp from 192.0.2.7]", "open 5432/tcp [*] [] []", "closed 7000/tcp [*] [] []")
	for _, port := range []string{"443/tcp", "5432/tcp"} {
		if e := got[port]; len(e.Bypass) != 1 || e.Bypass[0] != "eth1" {
			t.Errorf("%s is served by %q, want eth1", port, e.Bypass)
		}
	}
	if text := p.print("portcullis audit 2>/dev/null"); !strings.Contains(text, "192.0.2.7, anyone by eth1") {
		t.Error(text)
	}
	p.must(got["5432/tcp"].Fix)
	if e := p.audit()["5432/tcp"]; line(e) != "closed 5432/tcp [*] [] []" {
		t.Error(line(e))
	}
	if text := p.print("portcullis status 2>&1"); strings.Contains(text, "not filtered") {
		t.Error(text)
	}
}

// The commands that are printed are about the same filter and file.
func TestFixesCarryFlags(t *testing.T) {
	p := newPatient(t)
	p.write("interfaces: [eth0]\nopen: [80/tcp]\n")
	p.tcp("0.0.0.0:5432")
	flags := func(command string) bool {
		return strings.Contains(command, "portcullis --pin-path "+p.PinPath+" ") && strings.HasSuffix(command, " --config "+p.config)
	}
	for _, e := range p.audit() {
		if e.State != audit.Unused && !flags(e.Fix) {
			t.Errorf("audit: %s: %s", e.Port, e.Fix)
		}
	}
	check := p.expect("portcullis", "filter", doctor.Note)
	if len(check.Fix) != 1 || !flags(check.Fix[0]) {
		t.Errorf("doctor: %q", check.Fix)
	}
	p.must(check.Fix...)
	p.must(p.audit()["5432/tcp"].Fix)
	if text, err := os.ReadFile(p.config); err != nil || !strings.Contains(string(text), "5432/tcp") {
		t.Errorf("%v: the file holds\n%s", err, text)
	}
}

// Whether the host forwards is the same by netlink and in /proc, by whichever switch.
func TestForwarding(t *testing.T) {
	p := newPatient(t)
	for _, c := range []struct {
		key  string
		want bool
	}{
		{"ipv4/ip_forward", true}, {"ipv6/conf/all/forwarding", true}, {"ipv4/conf/eth0/forwarding", true}, {"ipv6/conf/eth0/forwarding", true},
		{"ipv4/conf/default/forwarding", false}, {"ipv4/conf/eth0/proxy_arp", false},
	} {
		for _, value := range []string{"1", "0"} {
			p.Server.Sysctl(t, c.key, value)
			p.Server.Do(t, func() error {
				want := c.want && value == "1"
				if got := host.Forwards(nil); got != want {
					t.Errorf("%s=%s: the host forwards: %t, want %t", c.key, value, got, want)
				}
				if got := host.Forwards(host.Files); got != want {
					t.Errorf("%s=%s: by /proc the host forwards: %t, want %t", c.key, value, got, want)
				}
				return nil
			})
		}
	}
}
