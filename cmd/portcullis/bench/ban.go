// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
)

// Bans are measured as fail2ban and CrowdSec have them made: a command for each, or one for many.
var (
	bannedBefore = []int{0, 20000}          // when one more is banned
	bannedAtOnce = []int{1000, 20000, bulk} // by one command
)

// upTo returns those of some sizes that a run has the time for.
func (b *bench) upTo(sizes []int) []int {
	return slices.DeleteFunc(slices.Clone(sizes), func(n int) bool { return n > b.options.Flows })
}

const keyIptablesRule = "iptables-rule"

// banner bans addresses with commands.
type banner struct {
	key, title string
	room       *room
	one        func(netip.Addr) []string
	all        []string // reads lines
	lines      func(n int) []byte
	forget     [][]string
}

// banOne measures how long it takes to ban an address with a command of its own, the first one and one more among many.
func (b *bench) banOne() error {
	return b.withBanners(true, func(others []banner) error {
		for _, before := range b.upTo(bannedBefore) {
			w := Work{
				Key: fmt.Sprintf("ban-command-%d", before), Unit: Microseconds, Baseline: keyFloor,
				Title: fmt.Sprintf("One address banned, %d are: the whole command", before),
			}
			for i := range others {
				if err := others[i].begin(before); err != nil {
					return err
				}
			}
			for round := range b.options.Rounds {
				b.progress.step(w.Title)
				floor, _, err := timed("true")
				if err != nil {
					return err
				}
				b.value(w, keyFloor, "a process that does nothing", micros(floor))
				for i := range others {
					o := &others[i]
					took, err := o.run(o.one(ordinary(uint32(mix(scattered+uint64(bulk+round))>>32))), nil)
					if err != nil {
						return err
					}
					b.value(w, o.key, o.title, micros(took))
				}
				if err := b.ctx.Err(); err != nil {
					return err
				}
			}
			for i := range others {
				if err := others[i].end(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// banMany measures how long it takes to ban many addresses with one command, which reads them as lines.
func (b *bench) banMany() error {
	return b.withBanners(false, func(others []banner) error {
		for _, n := range b.upTo(bannedAtOnce) {
			w := Work{
				Key: fmt.Sprintf("ban-lines-%d", n), Unit: Microseconds,
				Title: fmt.Sprintf("%s banned for an hour: the whole command", count(n, "address")),
			}
			for i := range others {
				o := &others[i]
				lines := o.lines(n)
				for range min(b.options.Rounds, bulkRounds) {
					b.progress.step(w.Title)
					took, err := o.run(o.all, lines)
					if err != nil {
						return err
					}
					b.value(w, o.key, o.title, micros(took))
					if err := errors.Join(o.end(), b.ctx.Err()); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}

// begin bans so many addresses.
func (o *banner) begin(n int) error {
	if n == 0 && o.key == keyPortcullis {
		return nil // no line is a mistake there
	}
	_, err := o.run(o.all, o.lines(n))
	return err
}

// end forgets what was banned.
func (o *banner) end() (err error) {
	for _, c := range o.forget {
		_, failed := o.run(c, nil)
		err = errors.Join(err, failed)
	}
	return err
}

func (o *banner) run(argv []string, input []byte) (took time.Duration, err error) {
	var stdin *os.File
	if input != nil {
		// A file, so that nobody takes turns with who writes into a pipe.
		if stdin, err = os.CreateTemp("", "portcullis-bench-"); err != nil {
			return 0, err
		}
		defer os.Remove(stdin.Name())
		defer stdin.Close()
		if _, err = stdin.Write(input); err == nil {
			_, err = stdin.Seek(0, 0)
		}
		if err != nil {
			return 0, err
		}
	}
	err = o.room.do(func() (err error) {
		took, _, err = timedWith(stdin, argv[0], argv[1:]...)
		return err
	})
	return took, err
}

// withBanners sets every firewall that can ban up, each on a stand of its own; rules, whether also the way with a rule of
// iptables for each address, which can only be measured one by one.
func (b *bench) withBanners(rules bool, work func([]banner) error) (err error) {
	dir, err := os.MkdirTemp("", "portcullis-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self := filepath.Join(dir, "portcullis")
	if err := copySelf(self); err != nil {
		return err
	}
	var list []banner
	for i := range b.kinds {
		switch b.kinds[i].key {
		case keyPortcullis:
			ours := []string{self, "--pin-path", pinPath}
			list = append(list, banner{
				key: keyPortcullis, title: "portcullis ban",
				one:   func(a netip.Addr) []string { return append(ours[:3:3], "ban", "--for", "1h", a.String()) },
				all:   append(ours[:3:3], "ban", "--for", "1h", "-"),
				lines: func(n int) []byte { return addressLines(scatteredSources(n)) }, forget: [][]string{append(ours[:3:3], "unban", "--all")},
			})
		case keyIptables:
			if why := installed("ipset")(); why != "" {
				b.report.leaveOut("ipset", why)
			} else {
				list = append(list, banner{
					key: keyIptables, title: "ipset, as CrowdSec with iptables",
					one: func(a netip.Addr) []string { return []string{"ipset", "add", "-exist", "bench", a.String()} },
					all: []string{"ipset", "restore"}, lines: func(n int) []byte { return []byte(ipsetText(n, true)) },
					forget: [][]string{{"ipset", "destroy", "bench"}},
				})
			}
			if rules {
				list = append(list, banner{
					key: keyIptablesRule, title: "iptables, a rule each, as fail2ban",
					one: func(a netip.Addr) []string {
						return []string{"iptables", "-w", "-I", "f2b-bench", "1", "-s", a.String(), "-j", "REJECT", "--reject-with", "icmp-port-unreachable"}
					},
					all: []string{"iptables-restore"}, lines: iptablesBans, forget: [][]string{{"iptables", "-F", "f2b-bench"}},
				})
			}
		case keyNft:
			list = append(list, banner{
				key: keyNft, title: "nft, as fail2ban's nftables",
				one: func(a netip.Addr) []string {
					return []string{"nft", "add element ip bench blocked { " + a.String() + " }"}
				},
				all: []string{"nft", "-f", "-"}, lines: func(n int) []byte { return []byte(nftSet(n, "flags timeout; timeout 1h; ")) },
				forget: [][]string{{"nft", "delete table ip bench"}},
			})
		}
	}
	for i := range list {
		s, err := newStand(true)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.close()) }()
		list[i].room = s.inside
		if list[i].key != keyPortcullis {
			continue
		}
		p := &portcullis{mode: loader.ModeNative}
		if err := s.inside.do(func() error {
			// Its journal of bans is none of the host's.
			if err := unix.Mount("tmpfs", "/var/lib", "tmpfs", 0, "mode=0755"); err != nil {
				return fmt.Errorf("mount a file system for the journal of bans: %w", err)
			}
			return p.install(s, scene{ports: 1}.rules(unix.IPPROTO_TCP))
		}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.inside.do(func() error { return p.remove(s) })) }()
	}
	return work(list)
}

// iptablesBans returns a chain with a rule for each of so many addresses.
func iptablesBans(n int) []byte {
	var b bytes.Buffer
	b.WriteString("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:f2b-bench - [0:0]\n-A INPUT -p tcp -j f2b-bench\n")
	for _, a := range scatteredSources(n) {
		fmt.Fprintf(&b, "-A f2b-bench -s %s -j REJECT --reject-with icmp-port-unreachable\n", a)
	}
	b.WriteString("COMMIT\n")
	return b.Bytes()
}
