// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
)

// LedgerCheck is how the ledger of an interface stands to what the device counted in the same time.
type LedgerCheck struct {
	Interface  string `json:"interface"`
	Mode       Mode   `json:"mode"`
	Counter    string `json:"counter"`    // of the device, as "ip -s link" and /sys/class/net have it
	Device     uint64 `json:"device"`     // frames that the device has received
	Ledger     uint64 `json:"ledger"`     // packets that the ledger has for them
	Merged     uint64 `json:"merged"`     // frames that the kernel had merged into these, without the first of each
	Lost       uint64 `json:"lost"`       // frames that the device says were lost behind it, perhaps before the filter
	Difference int64  `json:"difference"` // frames that the ledger has too few; below 0, too many
	Agrees     bool   `json:"agrees"`
	Unfiltered string `json:"unfiltered,omitempty"` // a sentence, where the interface is there and not filtered
	Note       string `json:"note"`                 // what there is to know of the device
}

// How long CheckLedger waits for what is on its way between the device and the ledger, and for drivers that seldom bring
// their counters up to date.
const (
	ledgerLook    = 500 * time.Millisecond
	ledgerTooLate = 4 * time.Second
)

// reading is a ledger between two looks at the devices.
type reading struct {
	before, after map[string]netlink.LinkStatistics
	ledger        map[string]Traffic
}

func (f *Filter) readLedger(interfaces []Interface) (r *reading, err error) {
	r = &reading{ledger: make(map[string]Traffic)}
	if r.before, err = statistics(interfaces); err != nil {
		return nil, err
	}
	traffic, err := f.Ledger()
	if err != nil {
		return nil, err
	}
	for _, t := range traffic {
		r.ledger[t.Interface] = t
	}
	r.after, err = statistics(interfaces)
	return r, err
}

// statistics returns those of interfaces that are there.
func statistics(interfaces []Interface) (map[string]netlink.LinkStatistics, error) {
	out := make(map[string]netlink.LinkStatistics)
	for _, i := range interfaces {
		link, err := host.Device(i.Name)
		if errors.Is(err, host.ErrNoDevice) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if s := link.Attrs().Statistics; s != nil {
			out[i.Name] = *s
		}
	}
	return out, nil
}

// CheckLedger holds what the ledger counts for a moment against what the devices count. Where they differ, it looks for
// longer: packets may be on their way, and some drivers bring their counters up to date once a second. An interface that is
// there and not filtered does not agree.
func (f *Filter) CheckLedger(ctx context.Context, moment time.Duration) (checks []LedgerCheck, err error) {
	all, err := f.Interfaces()
	if err != nil {
		return nil, err
	}
	var interfaces []Interface
	var unfiltered []LedgerCheck
	for _, i := range all {
		if i.Present {
			interfaces = append(interfaces, i)
		} else if text := i.UnfilteredText(); text != "" {
			unfiltered = append(unfiltered, LedgerCheck{Interface: i.Name, Mode: i.Mode, Note: i.Absence(), Unfiltered: text})
		}
	}
	from, err := f.readLedger(interfaces)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(moment)
	for wait := moment; ; wait = ledgerLook {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
		to, err := f.readLedger(interfaces)
		if err != nil {
			return nil, err
		}
		checks = []LedgerCheck{}
		agrees := true
		for _, i := range interfaces {
			check, err := compare(i, from, to)
			if err != nil {
				return nil, err
			}
			agrees = agrees && check.Agrees
			checks = append(checks, check)
		}
		if agrees || time.Since(end) > ledgerTooLate {
			return append(checks, unfiltered...), nil
		}
	}
}

// compare compares two readings of an interface.
func compare(i Interface, from, to *reading) (c LedgerCheck, err error) {
	_, had := from.ledger[i.Name]
	_, has := to.ledger[i.Name]
	if !had || !has {
		return c, fmt.Errorf("%s has no page of its own in the ledger: \"portcullis apply\" gives it one", i.Name)
	}
	begin, end := to.before[i.Name], to.after[i.Name]
	was, is := from.ledger[i.Name], to.ledger[i.Name]
	if end.RxPackets < from.before[i.Name].RxPackets || is.Received.Packets < was.Received.Packets {
		return c, fmt.Errorf("%s was made anew, or its driver has begun its counters anew: run the check again", i.Name)
	}
	c = LedgerCheck{
		Interface: i.Name, Mode: i.Mode, Counter: "rx_packets",
		Ledger: is.Received.Packets - was.Received.Packets,
		Merged: is.Merged - was.Merged,
		Lost:   end.RxDropped - from.before[i.Name].RxDropped,
	}
	// The ledger was read at some moment between the two looks at the device.
	least := saturated(begin.RxPackets, from.after[i.Name].RxPackets)
	most := end.RxPackets - from.before[i.Name].RxPackets
	c.Device, c.Difference = fits(c.Ledger, c.Merged, c.Lost, least, most)
	if c.Difference != 0 && i.Mode == ModeNative {
		// Some drivers count what is left after XDP.
		passed := is.Passed.Packets - was.Passed.Packets
		if device, difference := fits(passed, 0, c.Lost, least, most); difference == 0 {
			c.Device, c.Difference = device+c.Ledger-passed, 0
			c.Counter += ", without what XDP dropped"
			c.Note = fmt.Sprintf("the driver %s counts what XDP passes", hook.Driver(i.Name))
		}
	}
	c.Agrees = c.Difference == 0
	return c, nil
}

func saturated(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}

// fits returns how many frames the device has received, of what is possible the number that is nearest to the ledger, and
// how many of them the ledger lacks.
func fits(packets, merged, lost, least, most uint64) (device uint64, difference int64) {
	switch {
	case packets > most:
		return most, -int64(packets - most)
	case packets+merged+lost < least:
		return least, int64(least - packets - merged)
	}
	return min(max(packets, least), most), 0
}
