// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testServices stands for /etc/services, so that the tests mean the same on
// every host.
const testServices = `
# comment
ssh		22/tcp			# SSH Remote Login Protocol
smtp		25/tcp		mail
domain		53/tcp
domain		53/udp
http		80/tcp		www	# WorldWideWeb HTTP
kerberos	88/tcp		kerberos5 krb5
https		443/tcp
https		443/udp
biff		512/udp		comsat
amqp		5672/tcp
amqp		5672/udp
amqp		5672/sctp
rtmp		1/ddp
yes		7000/tcp
broken		port/tcp
half
`

func TestMain(m *testing.M) {
	s, err := ReadServices(strings.NewReader(testServices))
	if err != nil {
		panic(err)
	}
	defaultServices = func() *Services { return s }
	os.Exit(m.Run())
}

func mustRule(t testing.TB, text string) Rule {
	t.Helper()
	r, err := ParseRule(text)
	if err != nil {
		t.Fatalf("ParseRule(%q): %v", text, err)
	}
	return r
}

func mustPolicy(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return p
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// cpuTime returns what the process has used, which no neighbour on the machine makes longer.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
