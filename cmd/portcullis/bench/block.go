// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// bulk is how many addresses are blocked, or banned, at once.
const bulk = 1000000

// blockLoad measures how long it takes until a million addresses are blocked: from the text, which is in memory, to the
// moment when packets meet them.
func (b *bench) blockLoad() error {
	w := Work{Key: "block-load", Title: "1M blocked addresses put in force, from a list of text", Unit: Microseconds}
	text := addressLines(scatteredSources(bulk))
	return b.inBulk(w, false, func(f *loader.Filter) error {
		list := maps.BlockList{Name: "bench", Prefixes: make([]netip.Prefix, 0, bulk)}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			a, err := netip.ParseAddr(lines.Text())
			if err != nil {
				return err
			}
			list.Prefixes = append(list.Prefixes, netip.PrefixFrom(a, a.BitLen()))
		}
		blocking, err := maps.NewBlocking([]maps.BlockList{list}, nil)
		if err != nil {
			return err
		}
		return f.PutBlocking(blocking)
	}, func(f *loader.Filter) error { return f.PutBlocking(&maps.Blocking{}) })
}

// banBulk measures how long it takes to ban a million addresses for an hour.
func (b *bench) banBulk() error {
	w := Work{Key: "ban-bulk", Title: "1M addresses banned at once, for an hour", Unit: Microseconds}
	sources := scatteredSources(bulk)
	list := make([]maps.Ban, len(sources))
	prefixes := make([]netip.Prefix, len(sources))
	for i, a := range sources {
		prefixes[i] = netip.PrefixFrom(a, 32)
		list[i] = maps.Ban{Prefix: prefixes[i], Reason: "bench"}
	}
	return b.inBulk(w, true, func(f *loader.Filter) error {
		for i := range list {
			list[i].Until = time.Now().Add(time.Hour)
		}
		_, err := f.PutBans(list)
		return err
	}, func(f *loader.Filter) error {
		_, err := f.RemoveBans(prefixes)
		return err
	})
}

func addressLines(sources []netip.Addr) []byte {
	var b bytes.Buffer
	for _, a := range sources {
		b.WriteString(a.String())
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// bulkRounds is how many there are at most: some of the others take seconds each.
const bulkRounds = 5

// inBulk measures how long put takes with Portcullis, and how long ipset and nft take for the same.
func (b *bench) inBulk(w Work, timeout bool, put, remove func(*loader.Filter) error) error {
	others := b.bulkOthers(timeout)
	return b.filtered("", func(_ *stand, f *loader.Filter) error {
		for range min(b.options.Rounds, bulkRounds) {
			b.progress.step(w.Title)
			start := time.Now()
			if err := put(f); err != nil {
				return err
			}
			b.value(w, keyPortcullis, "Portcullis", micros(time.Since(start)))
			if err := remove(f); err != nil {
				return err
			}
			for _, o := range others {
				took, err := o.put()
				if err != nil {
					return err
				}
				b.value(w, o.key, o.title, micros(took))
			}
			if err := b.ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	})
}

// bulkOther is another firewall's set.
type bulkOther struct {
	key, title string
	program    []string
	text       string
	forget     []string
}

func (o *bulkOther) put() (took time.Duration, err error) {
	start := time.Now()
	_, err = command(o.text, o.program[0], o.program[1:]...)
	took = time.Since(start)
	_, forgotten := command("", o.forget[0], o.forget[1:]...)
	return took, errors.Join(err, forgotten)
}

// bulkOthers returns the others, whose sets lie in the room of the calling thread.
func (b *bench) bulkOthers(timeout bool) (out []bulkOther) {
	for i := range b.kinds {
		switch k := &b.kinds[i]; k.key {
		case keyIptables:
			if why := installed("ipset")(); why != "" {
				b.report.leaveOut("ipset", why)
				continue
			}
			out = append(out, bulkOther{
				key: k.key, title: "ipset restore", program: []string{"ipset", "restore"},
				text: ipsetText(bulk, timeout), forget: []string{"ipset", "destroy", "bench"},
			})
		case keyNft:
			flags := ""
			if timeout {
				flags = "flags timeout; timeout 1h; "
			}
			out = append(out, bulkOther{
				key: k.key, title: "nft -f", program: []string{"nft", "-f", "-"}, text: nftSet(bulk, flags),
				forget: []string{"nft", "delete", "table", "ip", "bench"},
			})
		}
	}
	return out
}

// nftSet returns a table with a set of blocked addresses.
func nftSet(blocked int, flags string) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "table ip bench {\n\tset blocked { type ipv4_addr; %s", flags)
	if blocked == 0 {
		b.WriteString("}\n}\n")
		return b.String()
	}
	b.WriteString("elements = { ")
	seen := make(map[netip.Addr]bool, blocked)
	for _, a := range scatteredSources(blocked) {
		if !seen[a] {
			seen[a] = true
			b.WriteString(a.String() + ", ")
		}
	}
	b.WriteString("} }\n}\n")
	return b.String()
}
