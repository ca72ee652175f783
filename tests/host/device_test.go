// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// The other tests of this package are about virtio-net, where the kernel matrix says so.
func TestDeviceIsVirtio(t *testing.T) {
	if os.Getenv(lab.Devices) == "" {
		t.Skip("the hosts are joined by a veth pair")
	}
	l := lab.New(t)
	for _, h := range []*lab.Host{l.Server, l.Client} {
		if driver := h.Run(t, "ethtool", "-i", "eth0"); !strings.Contains(driver, "driver: virtio_net\n") {
			t.Errorf("eth0 of %s: %s", h.Name, driver)
		}
	}
	up(t, l, loader.ModeAuto, policy.Default())
	if got := status(t, l).Interfaces[0]; got.Mode != loader.ModeNative {
		t.Errorf("auto gives %+v, want native XDP", got)
	}
}

// A frame that fills more than one page takes multi-buffer XDP, which veth has since Linux 5.18 and virtio-net since
// 6.3. Where the driver does not know it, auto goes over to TC and says why.
func TestLargeMTU(t *testing.T) {
	l := lab.New(t)
	for _, h := range []*lab.Host{l.Server, l.Client} {
		h.IP(t, "link", "set", "eth0", "mtu", "9000")
	}
	l.Server.Echo(t, 7)
	l.Server.Echo(t, 9)
	report := up(t, l, loader.ModeAuto, policyOf(t, "7/tcp"))
	got := status(t, l).Interfaces[0]
	t.Logf("%s, egress %s; %q", got.Mode, got.Egress, report.Warnings)
	switch {
	case got.Mode == loader.ModeNative && len(report.Warnings) == 0:
	case got.Mode == loader.ModeTC && os.Getenv(lab.Devices) != "" && got.Egress == "clsact" && // before Linux 6.6
		len(report.Warnings) == 1 && strings.Contains(report.Warnings[0], "filtering in TC"):
	default:
		t.Errorf("status says %+v, up said %+v", got, report)
	}
	for _, f := range families {
		c := mustDial(t, l.Client, "tcp", f.server, 7)
		mustTalk(t, c, strings.Repeat("long ", 10000))
		mustNotDial(t, l.Client, f.server, 9)
		for from, to := range map[*lab.Host]string{l.Client: f.server.String(), l.Server: f.client.String()} {
			from.Run(t, "ping", "-n", "-c1", "-W3", "-M", "do", "-s", "8000", to)
		}
	}

	// The second up finds out by itself which of the two programs runs.
	up(t, l, loader.ModeAuto, policyOf(t, "9/tcp"))
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	c := mustDial(t, l.Client, "tcp", lab.ServerV4, 9)
	mustTalk(t, c, strings.Repeat("long ", 10000))
}
