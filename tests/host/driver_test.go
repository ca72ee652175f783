// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// vmxnet3 is a lab whose hosts are joined by cards of that driver, as the kernel matrix has two.
func vmxnet3(t *testing.T) *lab.Lab {
	t.Helper()
	if os.Getenv(lab.Devices) == "" {
		t.Skip("the hosts are joined by a veth pair, not by vmxnet3")
	}
	l := lab.New(t)
	if driver := l.Server.Run(t, "ethtool", "-i", "eth0"); !strings.Contains(driver, "driver: vmxnet3\n") {
		t.Skip("the hosts are not joined by vmxnet3")
	}
	return l
}

// events make the driver set up its queues anew, after which vmxnet3 no longer runs a program that it ran before.
var events = []struct {
	name string
	do   func(t *testing.T, h *lab.Host)
}{
	{"down and up", func(t *testing.T, h *lab.Host) {
		h.IP(t, "link", "set", "eth0", "down")
		h.IP(t, "link", "set", "eth0", "up")
	}},
	{"MTU", func(t *testing.T, h *lab.Host) { h.IP(t, "link", "set", "eth0", "mtu", "1400") }},
	{"rings", func(t *testing.T, h *lab.Host) {
		if out, err := h.Command("ethtool", "-G", "eth0", "rx", "128").CombinedOutput(); err != nil {
			t.Skipf("this driver's rings keep their size: %s", out)
		}
	}},
}

// answers reports whether a port of the server answers before long.
func answers(l *lab.Lab, port int) bool {
	c, err := dial(l.Client, "tcp", lab.ServerV4, port, refusal)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// knocking tries a port of the server, whatever comes of it, until the function that it returns is called.
func knocking(l *lab.Lab, port int) (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				answers(l, port)
				time.Sleep(150 * time.Millisecond)
			}
		}
	}()
	return func() { close(stop); <-done }
}

// reaches waits until the link carries packets again.
func reaches(t *testing.T, l *lab.Lab, port int) {
	t.Helper()
	for end := time.Now().Add(patience); !answers(l, port); {
		if time.Now().After(end) {
			t.Fatal("the open port does not answer")
		}
	}
}

// Other drivers than vmxnet3 run the program on.
func TestTheDriverRemembersTheProgram(t *testing.T) {
	for _, e := range events {
		t.Run("native, "+e.name, func(t *testing.T) {
			l := lab.New(t)
			if native(t, l, e.do) {
				t.Error("the closed port answers")
			}
			time.Sleep(300 * time.Millisecond)
			defer knocking(l, 9)()
			for range 8 {
				time.Sleep(130 * time.Millisecond)
				if got := past(t, l, time.Second); len(got) != 0 {
					t.Fatalf("packets are said to come past the filter on %v", got)
				}
			}
		})
	}
}

func TestVmxnet3IsFilteredInTC(t *testing.T) {
	for _, e := range events {
		t.Run("auto, "+e.name, func(t *testing.T) {
			l := vmxnet3(t)
			l.Server.Echo(t, 7)
			l.Server.Echo(t, 9)
			report := up(t, l, loader.ModeAuto, policyOf(t, "7/tcp"))
			if got := status(t, l).Interfaces[0].Mode; got != loader.ModeTC || !strings.Contains(strings.Join(report.Warnings, ""), "vmxnet3") {
				t.Errorf("auto gives %s, and says %q", got, report.Warnings)
			}
			e.do(t, l.Server)
			reaches(t, l, 7)
			mustNotDial(t, l.Client, lab.ServerV4, 9)
		})
	}
}

// native filters in native XDP, has the driver forget that, and reports whether it did.
func native(t *testing.T, l *lab.Lab, event func(*testing.T, *lab.Host)) (open bool) {
	t.Helper()
	l.Server.Echo(t, 7)
	l.Server.Echo(t, 9)
	if err := try(l, loader.Options{Interfaces: []string{"eth0"}, Mode: loader.ModeNative, Policy: policyOf(t, "7/tcp")}); err != nil {
		t.Skipf("this kernel's vmxnet3 takes no native XDP: %v", err)
	}
	reaches(t, l, 7)
	mustNotDial(t, l.Client, lab.ServerV4, 9)
	event(t, l.Server)
	reaches(t, l, 7)
	return answers(l, 9)
}

func TestVmxnet3IsMendedByUp(t *testing.T) {
	for _, e := range events {
		t.Run("native, "+e.name, func(t *testing.T) {
			l := vmxnet3(t)
			open := native(t, l, e.do)
			t.Logf("report: vmxnet3, %s: the closed port answers: %v", e.name, open)
			time.Sleep(300 * time.Millisecond)
			end := knocking(l, 9)
			if got := past(t, l, patience); (len(got) == 1) != open {
				t.Errorf("the closed port answers: %v, and packets past the filter are seen on %v", open, got)
			}
			end()
			up(t, l, loader.ModeAuto, policyOf(t, "7/tcp"))
			reaches(t, l, 7)
			mustNotDial(t, l.Client, lab.ServerV4, 9)
			if got := status(t, l).Interfaces[0].Mode; got != loader.ModeTC {
				t.Errorf("up leaves %s", got)
			}
		})
	}
}

func TestVmxnet3IsMendedByTheAgent(t *testing.T) {
	for _, e := range events {
		t.Run("native, "+e.name, func(t *testing.T) {
			l := vmxnet3(t)
			native(t, l, func(*testing.T, *lab.Host) {})
			a := newAgent(t, l, "interfaces: [eth0]\nopen: [7/tcp]\n")
			a.runs("--mode", "native")
			e.do(t, l.Server)
			reaches(t, l, 7)
			began := time.Now()
			overTC := func() bool { return status(t, l).Interfaces[0].Mode == loader.ModeTC }
			for open := false; !open; {
				if open = answers(l, 9) || overTC(); !open && time.Since(began) > patience/2 {
					t.Skip("the driver runs the program on")
				}
			}
			a.waitsFor("TC", func() bool { answers(l, 9); return overTC() })
			t.Logf("report: vmxnet3, %s: TC filters %.1f s after packets came again", e.name, time.Since(began).Seconds())
			mustNotDial(t, l.Client, lab.ServerV4, 9)
			reaches(t, l, 7)
		})
	}
}

// Someone who asks for native XDP is told what it may come to.
func TestVmxnet3IsKnownToDoctor(t *testing.T) {
	l := vmxnet3(t)
	a := newAgent(t, l, "interfaces: [eth0]\n")
	out, _ := a.command("doctor", "--config", a.file()).CombinedOutput()
	if !strings.Contains(string(out), "vmxnet3 stops running") {
		t.Errorf("doctor says\n%s", out)
	}
	up(t, l, loader.ModeTC, policy.Default())
}
