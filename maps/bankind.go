// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// banKind tells the maps of bans apart: addresses and networks, IPv4 and IPv6.
type banKind int

const (
	addresses4 banKind = iota
	addresses6
	networks4
	networks6
)

var banKinds = [...]banKind{addresses4, addresses6, networks4, networks6}

func banKindOf(p netip.Prefix) banKind {
	switch {
	case p.Addr().Is4() && p.IsSingleIP():
		return addresses4
	case p.IsSingleIP():
		return addresses6
	case p.Addr().Is4():
		return networks4
	}
	return networks6
}

func (k banKind) name() string {
	return [...]string{bpf.FirewallMapBans4, bpf.FirewallMapBans6, bpf.FirewallMapBanNetworks4, bpf.FirewallMapBanNetworks6}[k]
}

func (k banKind) String() string {
	return [...]string{"IPv4 addresses", "IPv6 addresses", "IPv4 networks", "IPv6 networks"}[k]
}

// ask is what the datapath has to ask for as long as the map has anything in it.
func (k banKind) ask() bpf.FirewallAsk {
	return [...]bpf.FirewallAsk{
		bpf.FirewallAskASK_BANS4, bpf.FirewallAskASK_BANS6,
		bpf.FirewallAskASK_BAN_NETWORKS4, bpf.FirewallAskASK_BAN_NETWORKS6,
	}[k]
}

// key returns the key of a prefix in the map.
func (k banKind) key(p netip.Prefix) any {
	switch k {
	case addresses4:
		return word4(p.Addr())
	case addresses6:
		return bpf.FirewallBanKey6{Addr: words6(p.Addr())}
	case networks4:
		return localKey4(p)
	}
	return localKey6(p)
}

// lookup reads the ban of a prefix, and of no longer or shorter one.
func (k banKind) lookup(m *ebpf.Map, key any, p netip.Prefix, ban *bpf.FirewallBan) error {
	err := m.Lookup(key, ban)
	if err == nil && int(ban.PrefixLen) != p.Bits() {
		return ebpf.ErrKeyNotExist // of a trie, the network around it
	}
	return err
}

// put writes bans, and returns how many it did before there was an error.
func (k banKind) put(m *ebpf.Map, bans []Ban, values []bpf.FirewallBan) (done int, err error) {
	// The kernel's allocator may be out of what it keeps at hand, and fetches more a moment later.
	for tries := 0; ; tries++ {
		n, err := k.putOnce(m, bans[done:], values[done:])
		done += n
		if !errors.Is(err, unix.ENOMEM) || tries == 100 {
			return done, err
		}
		if n > 0 {
			tries = 0
		}
		time.Sleep(time.Millisecond)
	}
}

func (k banKind) putOnce(m *ebpf.Map, bans []Ban, values []bpf.FirewallBan) (done int, err error) {
	if len(bans) > 1 {
		switch k {
		case addresses4:
			return putBatch(m, bans, values, func(p netip.Prefix) uint32 { return word4(p.Addr()) })
		case addresses6:
			return putBatch(m, bans, values, func(p netip.Prefix) bpf.FirewallBanKey6 {
				return bpf.FirewallBanKey6{Addr: words6(p.Addr())}
			})
		}
	}
	for i, b := range bans {
		if err := m.Put(k.key(b.Prefix), &values[i]); err != nil {
			return i, err
		}
	}
	return len(bans), nil
}

func putBatch[K any](m *ebpf.Map, bans []Ban, values []bpf.FirewallBan, key func(netip.Prefix) K) (int, error) {
	keys := make([]K, len(bans))
	for i, b := range bans {
		keys[i] = key(b.Prefix)
	}
	return m.BatchUpdate(keys, values, nil)
}

// remove takes bans out. Who is not there is none the worse for it.
func (k banKind) remove(m *ebpf.Map, prefixes []netip.Prefix) error {
	switch k {
	case addresses4:
		return removeBatch(m, prefixes, func(p netip.Prefix) uint32 { return word4(p.Addr()) })
	case addresses6:
		return removeBatch(m, prefixes, func(p netip.Prefix) bpf.FirewallBanKey6 {
			return bpf.FirewallBanKey6{Addr: words6(p.Addr())}
		})
	}
	for _, p := range prefixes {
		if err := m.Delete(k.key(p)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("end the ban of %s: %w", p, err)
		}
	}
	return nil
}

func removeBatch[K any](m *ebpf.Map, prefixes []netip.Prefix, key func(netip.Prefix) K) error {
	keys := make([]K, len(prefixes))
	for i, p := range prefixes {
		keys[i] = key(p)
	}
	for len(keys) > 0 {
		n, err := m.BatchDelete(keys, nil)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ebpf.ErrKeyNotExist) || n >= len(keys) {
			return fmt.Errorf("end the ban of %s: %w", prefixes[len(prefixes)-len(keys)+min(n, len(keys)-1)], err)
		}
		keys = keys[n+1:]
	}
	return nil
}

var errStopped = errors.New("stopped")

// eachBan calls each for every ban of a kind. If that returns false, the error is errStopped.
func (s *State) eachBan(k banKind, each func(netip.Prefix, *bpf.FirewallBan) bool) error {
	m, err := s.Map(k.name())
	if err != nil {
		return err
	}
	switch k {
	case addresses4:
		return eachInBatches(m, each, func(key uint32) netip.Prefix { return netip.PrefixFrom(addr4(key), 32) })
	case addresses6:
		return eachInBatches(m, each, func(key bpf.FirewallBanKey6) netip.Prefix { return netip.PrefixFrom(addr6(key.Addr), 128) })
	case networks4:
		return eachOne(m, each, func(key bpf.FirewallLocalKey4) netip.Prefix {
			return netip.PrefixFrom(addr4(key.Addr), int(key.PrefixLen))
		})
	}
	return eachOne(m, each, func(key bpf.FirewallLocalKey6) netip.Prefix {
		return netip.PrefixFrom(addr6(key.Addr), int(key.PrefixLen))
	})
}

func eachInBatches[K any](m *ebpf.Map, each func(netip.Prefix, *bpf.FirewallBan) bool, prefix func(K) netip.Prefix) error {
	keys, values := make([]K, banBatch), make([]bpf.FirewallBan, banBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read the bans: %w", err)
		}
		for i := range n {
			if !each(prefix(keys[i]), &values[i]) {
				return errStopped
			}
		}
		if err != nil {
			return nil
		}
	}
}

func eachOne[K any](m *ebpf.Map, each func(netip.Prefix, *bpf.FirewallBan) bool, prefix func(K) netip.Prefix) error {
	var key K
	var value bpf.FirewallBan
	it := m.Iterate()
	for it.Next(&key, &value) {
		if !each(prefix(key), &value) {
			return errStopped
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the banned networks: %w", err)
	}
	return nil
}
