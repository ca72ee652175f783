// SPDX-License-Identifier: Apache-2.0

package member

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

const (
	// banReason is that of all bans of a fleet, of which a host has no room for one for each other host.
	banReason = "fleet"
	bansFile  = "bans.json"
	banPoll   = 250 * time.Millisecond
	banRescan = 30 * time.Second // bans end without a word
)

// taken are the bans of others that this host has dealt with: what has ended here is not begun anew.
type taken struct {
	Serial uint64                       `json:"serial"` // of the newest signed list
	Bans   map[string]map[string]uint64 `json:"bans"`   // by who bans, and whom: the ban's number
}

// followBans bans whom others ban.
func (m *Member) followBans(ctx context.Context, s store.Store, r rules) {
	have := taken{Bans: make(map[string]map[string]uint64)}
	if text, err := os.ReadFile(m.disk.path(bansFile)); err == nil && (json.Unmarshal(text, &have) != nil || have.Bans == nil) {
		have.Bans = make(map[string]map[string]uint64) // then they are banned once more
	}
	prefix := fleet.BansPrefix(m.Config.Group)
	lists := make(map[string]*fleet.BanList)
	told := ""
	m.eachChange(ctx, s, prefix, func(c store.Changes) {
		if c.All {
			clear(lists)
		}
		for _, key := range c.Gone {
			delete(lists, strings.TrimPrefix(key, prefix))
		}
		for key, object := range c.Objects {
			by := strings.TrimPrefix(key, prefix)
			if by == m.Config.Name || by != fleet.OperatorBans && !r.bans.Hosts || slices.Contains(r.absent, by) {
				continue
			}
			l, err := fleet.OpenBans(object.Value, m.Config.Group, by, r.keys)
			if err == nil && by == fleet.OperatorBans && l.Serial < have.Serial {
				err = fmt.Errorf("the bans of the fleet's operators are older than those that were in force here (%d, and then %d)", have.Serial, l.Serial)
			}
			if err != nil {
				m.Log.Error("%v: what is banned stays so", err)
				continue
			}
			lists[by] = l
		}
		for _, text := range m.takeBans(ctx, &have, lists, r.bans.Limit()) {
			if text != told {
				told = text
				m.Log.Warn("%s", text)
			}
		}
	})
}

// takeBans bans whom the lists have come to hold, and ends the bans of whom they hold no more.
func (m *Member) takeBans(ctx context.Context, have *taken, lists map[string]*fleet.BanList, most int) (warnings []string) {
	now := make(map[string]map[string]uint64)
	wanted := make(map[netip.Prefix]bool)
	var begin []bans.Line
	left := 0
	for _, by := range slices.Sorted(maps.Keys(lists)) { // that of the operators is the first
		now[by] = make(map[string]uint64)
		for _, b := range lists[by].Bans {
			if !wanted[b.Prefix] && len(wanted) >= most {
				left++
				continue
			}
			wanted[b.Prefix] = true
			text := b.Prefix.String()
			if n, known := have.Bans[by][text]; !known || n != b.Number {
				begin = append(begin, bans.Line{Prefix: b.Prefix, For: time.Duration(b.Seconds) * time.Second, Reason: banReason})
			}
			now[by][text] = b.Number
		}
	}
	var end []netip.Prefix
	for _, list := range have.Bans {
		for text := range list {
			if p, err := netip.ParsePrefix(text); err == nil && !wanted[p] {
				end = append(end, p)
			}
		}
	}
	if left > 0 {
		warnings = append(warnings, fmt.Sprintf("the fleet bans more than %d addresses and networks: %d are not banned here", most, left))
	}
	if len(begin) > 0 {
		report, err := m.Firewall.Ban(ctx, firewall.BanRequest{Bans: begin})
		if err != nil && report == nil {
			return append(warnings, fmt.Sprintf("bans of the fleet: %v", err)) // with the next change
		}
		for i, refused := range report.Refused {
			if i == 3 {
				warnings = append(warnings, fmt.Sprintf("nor are %d more", len(report.Refused)-i))
				break
			}
			warnings = append(warnings, fmt.Sprintf("the fleet bans %s, which is not banned here: %v", begin[refused.Place].Prefix, refused.Err))
		}
		warnings = append(warnings, report.Warnings...)
	}
	if len(end) > 0 {
		if _, err := m.Firewall.Unban(ctx, firewall.UnbanRequest{Prefixes: end, IsReason: func(r string) bool { return r == banReason }}); err != nil {
			return append(warnings, fmt.Sprintf("bans of the fleet: %v", err))
		}
	}
	have.Bans = now
	if l := lists[fleet.OperatorBans]; l != nil {
		have.Serial = max(have.Serial, l.Serial)
	}
	text, err := json.Marshal(have)
	if err == nil {
		err = m.disk.put(bansFile, text)
	}
	if err != nil {
		warnings = append(warnings, fmt.Sprintf("bans of the fleet are in force, but that cannot be written down: %v", err))
	}
	return warnings
}

// shareBans tells others whom this host bans, as soon as its journal says so.
func (m *Member) shareBans(ctx context.Context, s store.Store, r rules) {
	var wait backoff
	var seen os.FileInfo
	lasts := make(map[netip.Prefix]fleet.Ban) // as they were first told
	told, read := "", time.Time{}
	for ctx.Err() == nil {
		info, err := os.Stat(m.Firewall.Journal().Path())
		if err != nil {
			info = nil
		}
		if same := seen != nil && info != nil && seen.Size() == info.Size() && seen.ModTime().Equal(info.ModTime()); same && time.Since(read) < banRescan {
			sleep(ctx, banPoll)
			continue
		}
		began := time.Now()
		list, err := m.ownBans(ctx, lasts, r.bans.Limit())
		if err != nil {
			sleep(ctx, wait.next())
			continue
		}
		seen, read = info, time.Now()
		text, err := list.Text()
		if err == nil && string(text) != told && (told != "" || len(list.Bans) > 0) {
			err = s.Put(ctx, fleet.BansKey(m.Config.Group, m.Config.Name), text, store.Any)
		}
		if err != nil {
			seen = nil
			sleep(ctx, wait.next())
			continue
		}
		told, wait = string(text), 0
		// To read a million of them takes a quarter of a second of this host's time.
		sleep(ctx, max(banPoll, 10*time.Since(began)))
	}
}

// ownBans returns the newest of the bans of this host that no other has told it of.
func (m *Member) ownBans(ctx context.Context, lasts map[netip.Prefix]fleet.Ban, most int) (*fleet.BanList, error) {
	l := &fleet.BanList{Group: m.Config.Group, By: m.Config.Name, Bans: []fleet.Ban{}}
	f, err := m.Firewall.View(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	now := time.Now()
	for b, err := range f.Bans() {
		if err != nil {
			return nil, err
		}
		if b.Reason == banReason || !b.Until.IsZero() && b.Until.Before(now) {
			continue
		}
		one := fleet.Ban{Prefix: b.Prefix, Reason: b.Reason, Number: uint64(b.Since.Unix())}
		if !b.Until.IsZero() {
			one.Seconds = int64(b.Until.Sub(now)/time.Second) + 1
		}
		if was, ok := lasts[b.Prefix]; ok && was.Number == one.Number && (was.Seconds == 0) == (one.Seconds == 0) {
			one = was
		}
		l.Bans = append(l.Bans, one)
	}
	newest := func(a, b fleet.Ban) int {
		return cmp.Or(cmp.Compare(b.Number, a.Number), a.Prefix.Addr().Compare(b.Prefix.Addr()), a.Prefix.Bits()-b.Prefix.Bits())
	}
	slices.SortFunc(l.Bans, newest)
	l.Bans = l.Bans[:min(len(l.Bans), most)]
	clear(lasts)
	for _, b := range l.Bans {
		lasts[b.Prefix] = b
	}
	return l, nil
}
