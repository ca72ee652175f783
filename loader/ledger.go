// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
)

// Each interface has a page of the ledger, whose number is kept with the constants of its programs: it outlives the
// policy, the mode and the name of the interface, and a device that is made anew goes on with it. When nobody waits for
// an interface any more its page is free, and what was on it counts among what is gone.

// TrafficCounter is a reason and the packets that it decided on one interface.
type TrafficCounter struct {
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"` // "rule" stands for all rules
	maps.Tally
}

// What traffic is of.
const (
	OfInterface = "interface"
	OfOthers    = "others" // interfaces for which there was no page left
	OfGone      = "gone"   // interfaces that are filtered no more, and what an older version counted
)

// Traffic is what came in by one interface: what was received was either passed or dropped.
type Traffic struct {
	Of        string           `json:"of"`
	Interface string           `json:"interface"` // or empty
	Received  maps.Tally       `json:"received"`
	Passed    maps.Tally       `json:"passed"`
	WouldDrop maps.Tally       `json:"would_drop"` // of these, what passed only because the filter watches
	Dropped   maps.Tally       `json:"dropped"`
	Merged    uint64           `json:"merged"` // frames that the kernel had merged into packets before TC saw them, without the first of each
	Unsent    maps.Tally       `json:"unsent"` // routed packets that were not let out here: they came in elsewhere
	Counters  []TrafficCounter `json:"counters"`
}

// Ledger returns what came in by each interface that is filtered, and by all others, if anything did.
func (f *Filter) Ledger() ([]Traffic, error) {
	counted, err := f.set.Ledger()
	if err != nil {
		return nil, err
	}
	return f.ledger(counted)
}

func (f *Filter) ledger(counted *maps.Ledger) ([]Traffic, error) {
	names, err := f.pins.Interfaces()
	if err != nil {
		return nil, err
	}
	out, taken := []Traffic{}, []uint32{maps.OthersPage}
	for _, name := range names {
		page := pageOf(f.pins.Policy(), name)
		if page == maps.OthersPage {
			continue // it was not there yet, or there was no page for it
		}
		taken = append(taken, page)
		out = append(out, traffic(OfInterface, name, counted.Page(page)))
	}
	for _, t := range []Traffic{
		traffic(OfOthers, "", counted.Page(maps.OthersPage)), traffic(OfGone, "", counted.Rest(taken)),
	} {
		if !t.isEmpty() {
			out = append(out, t)
		}
	}
	return out, nil
}

func (t *Traffic) isEmpty() bool { return t.Received == maps.Tally{} && t.Unsent == maps.Tally{} }

func traffic(of, name string, page *maps.Page) Traffic {
	t := Traffic{
		Of:        of,
		Interface: name,
		Received:  page.Received(),
		Passed:    page.Passed(),
		WouldDrop: page.With(maps.WouldDrop),
		Dropped:   page.With(maps.Drop),
		Merged:    page.Of(maps.Merged).Packets,
		Counters:  []TrafficCounter{},
	}
	for reason, tally := range page.Unsent() {
		if !reason.IsWatched() {
			t.Unsent.Add(tally)
		}
	}
	add := func(verdict, reason string, tally maps.Tally) {
		if tally.Packets > 0 {
			t.Counters = append(t.Counters, TrafficCounter{verdict, reason, tally})
		}
	}
	add(maps.Pass, "rule", page.ByRules())
	for _, r := range maps.Reasons() {
		if r.Verdict() != maps.Seen {
			add(r.Verdict(), r.String(), page.Of(r))
		}
	}
	return t
}

// pageOf returns the page of the programs that a policy has for an interface, or OthersPage.
func pageOf(dir, iface string) uint32 {
	for _, direction := range []string{pin.Out, pin.In, pin.InFrags} {
		if loaded, err := pin.LoadedWith(pin.Program(dir, iface, direction)); err == nil && loaded.Page != maps.OthersPage {
			return loaded.Page
		}
	}
	return maps.OthersPage
}

// pages gives pages of the ledger to interfaces.
type pages struct {
	set   *maps.Set
	pins  pin.Dir
	taken map[uint32]string   // and by whom
	named map[uint32][]uint32 // those that AssignPage has named, and to which devices; nil before it is asked
}

func newPages(set *maps.Set, p pin.Dir) (*pages, error) {
	names, err := p.Interfaces()
	if err != nil {
		return nil, err
	}
	g := &pages{set: set, pins: p, taken: make(map[uint32]string)}
	for _, name := range names {
		if page := pageOf(p.Policy(), name); page != maps.OthersPage {
			g.taken[page] = name
		}
	}
	return g, nil
}

// of returns the page of an interface, and gives it one if there is one left.
func (g *pages) of(iface string) (uint32, error) {
	n, err := g.set.Pages()
	if err != nil {
		return 0, err
	}
	free := uint32(maps.OthersPage)
	for page := n - 1; page > maps.OthersPage; page-- {
		switch g.taken[page] {
		case iface:
			return page, nil
		case "":
			free = page
		}
	}
	if free == maps.OthersPage {
		return free, nil
	}
	g.taken[free] = iface
	return free, g.set.BeginPage(free)
}

// assignPage gives a target its page, and names that to programs that stand at more than one device.
func (c *change) assignPage(t *target) (uint32, error) {
	page, err := c.pages.of(t.name())
	if err != nil {
		return page, err
	}
	if c.pages.named == nil {
		if c.pages.named, err = c.set.AssignedPages(); err != nil {
			return page, err
		}
	}
	index := t.device.Attrs().Index
	former := c.pages.named[page]
	c.pages.named[page] = []uint32{uint32(index)}
	// Also where there is none left: an earlier device may have had the index.
	return page, c.set.AssignPage(index, page, former)
}

// resizeLedger makes room for pages of the devices of this host.
func (c *change) resizeLedger(spec *ebpf.CollectionSpec) error {
	devices, err := netlink.LinkList()
	if len(devices) == 0 {
		return fmt.Errorf("list interfaces: %w", err)
	}
	return maps.ResizeLedger(spec, len(devices), c.state)
}

// endLedger adds what programs that are replaced have counted in maps of their own, and ends the handover of devices that
// went over from XDP to TC or back, also one of a command that was killed. The new policy stands, so this only warns.
func (c *change) endLedger() {
	var err error
	if c.set.Inherits() {
		maps.WaitForPackets()
		err = c.set.InheritRest()
	}
	if err = errors.Join(err, c.set.SetHandover(false)); err != nil {
		c.warn("what came in meanwhile may be counted wrongly: %v", err)
	}
}

// beginHandover is to be called before XDP and TC both filter a device.
func (c *change) beginHandover() error {
	if c.handover {
		return nil
	}
	c.handover = true
	if err := c.set.SetHandover(true); err != nil {
		return err
	}
	c.onUndo(func() error { return c.set.SetHandover(false) })
	maps.WaitForPackets() // what is on its way has no mark
	return nil
}
