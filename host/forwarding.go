// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Forwards reports whether this host forwards packets of any interface, over IPv4 or IPv6. Where files is nil, this host
// is asked.
func Forwards(files fs.FS) bool {
	if files == nil {
		on, err := forwardsByNetlink()
		if err == nil {
			return on
		}
		files = Files
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		if on, _ := Sysctl(files, "net/"+family+"/conf/all/forwarding"); on != "" && on != "0" {
			return true
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		names, _ := fs.Glob(files, "proc/sys/net/"+family+"/conf/*/forwarding")
		for _, name := range names {
			on, err := Sysctl(files, strings.TrimPrefix(name, "proc/sys/"))
			// What new interfaces get forwards nothing yet.
			if err == nil && on != "0" && !strings.HasSuffix(name, "/default/forwarding") {
				return true
			}
		}
	}
	return false
}

// Of struct netconfmsg and its attributes (linux/netconf.h).
const (
	netconfHeader     = 4 // the family, and its padding
	netconfIndex      = 1
	netconfForwarding = 2
	netconfDefault    = -2 // the index of what new interfaces get
)

// netconfRequest asks for the settings of all interfaces.
type netconfRequest [netconfHeader]byte

// Len implements nl.NetlinkRequestData.
func (r netconfRequest) Len() int { return len(r) }

// Serialize implements nl.NetlinkRequestData.
func (r netconfRequest) Serialize() []byte { return r[:] }

// forwardsByNetlink is Forwards by two system calls instead of several for each interface.
func forwardsByNetlink() (bool, error) {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		req := nl.NewNetlinkRequest(unix.RTM_GETNETCONF, unix.NLM_F_DUMP)
		req.AddData(netconfRequest{family})
		messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNETCONF)
		if err != nil {
			return false, err
		}
		for _, m := range messages {
			if len(m) < netconfHeader {
				return false, fmt.Errorf("the kernel answers with %d bytes, want %d", len(m), netconfHeader)
			}
			attrs, err := nl.ParseRouteAttr(m[netconfHeader:])
			if err != nil {
				return false, err
			}
			var index, forwarding int32
			for _, a := range attrs {
				switch {
				case len(a.Value) < 4:
				case a.Attr.Type == netconfIndex:
					index = int32(binary.NativeEndian.Uint32(a.Value))
				case a.Attr.Type == netconfForwarding:
					forwarding = int32(binary.NativeEndian.Uint32(a.Value))
				}
			}
			if forwarding != 0 && index != netconfDefault {
				return true, nil
			}
		}
	}
	return false, nil
}
