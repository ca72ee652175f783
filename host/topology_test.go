// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net/netip"
	"slices"
	"testing"
	"testing/fstest"
)

func TestResolvers(t *testing.T) {
	files := fstest.MapFS{
		"etc/resolv.conf":                 {Data: []byte("# nameserver 192.0.2.9\nsearch example.org\nnameserver 127.0.0.53\n  nameserver\t2001:db8::53  # ours\nnameserver what\nnameserver\n")},
		"run/systemd/resolve/resolv.conf": {Data: []byte("nameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver 127.0.0.53\n")},
	}
	var want []netip.Addr
	for _, text := range []string{"127.0.0.53", "2001:db8::53", "192.0.2.53", "fe80::1"} {
		want = append(want, netip.MustParseAddr(text))
	}
	if got := Resolvers(files); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := Resolvers(fstest.MapFS{}); got != nil {
		t.Errorf("without files: %v", got)
	}
}

func TestWhoHasLoggedIn(t *testing.T) {
	for title, want := range map[string]bool{
		"sshd: root@pts/0":                 true,
		"sshd: user@notty":                 true,
		"sshd-session: root@pts/3":         true,
		"sshd: root@pts/0,pts/1":           true,
		"sshd: root [priv]":                false,
		"sshd: unknown [net]":              false,
		"sshd: user@example.org [priv]":    false,
		"sshd: user@example.org [preauth]": false,
		"sshd: [accepted]":                 false,
		"sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups": false,
		"/usr/sbin/sshd":  false,
		"nginx: me@pts/0": false,
		"":                false,
	} {
		if got := isLoggedIn(title); got != want {
			t.Errorf("%q: %v", title, got)
		}
	}
	want := Connection{Local: netip.MustParseAddrPort("192.0.2.1:22"), Remote: netip.MustParseAddrPort("198.51.100.7:50000")}
	for text, ok := range map[string]bool{
		"198.51.100.7 50000 192.0.2.1 22":               true,
		"::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 22": true,
		"198.51.100.7 50000 192.0.2.1":                  false,
		"198.51.100.7 500000 192.0.2.1 22":              false,
		"a b c d":                                       false,
		"":                                              false,
	} {
		if got, read := parseSSHConnection(text); read != ok || ok && got != want {
			t.Errorf("%q: %v, %v", text, got, read)
		}
	}
}
