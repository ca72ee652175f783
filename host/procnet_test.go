// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Both ways of listing sockets see the same ones.
func TestProcListsWhatSockDiagLists(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Skip(err)
		}
		defer ln.Close()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()

		family := uint8(unix.AF_INET)
		if c.LocalAddr().(*net.TCPAddr).IP.To4() == nil {
			family = unix.AF_INET6
		}
		var found []string
		err = eachProcSocket(unix.IPPROTO_TCP, family, func(k *Socket) {
			if k.State == 1 {
				found = append(found, fmt.Sprint(k.Local, k.Remote))
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint(c.LocalAddr(), c.RemoteAddr()); !slices.Contains(found, want) {
			t.Errorf("/proc lists %v, want %s among them", found, want)
		}
	}
}

func FuzzParseProcSocket(f *testing.F) {
	f.Add("   0: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0")
	f.Add("0: 0000000000000000FFFF00000100007F:01BB 0000000000000000FFFF00000100007F:D431 01")
	f.Fuzz(func(t *testing.T, line string) {
		if k, err := parseProcSocket(line); err == nil && (!k.Local.IsValid() || !k.Remote.IsValid()) {
			t.Errorf("%q gives %+v", line, k)
		}
	})
}
