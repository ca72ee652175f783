// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// bansFile is where bans are written down, in the directory of the last good policy.
const bansFile = "bans"

// Journal returns where bans are written down for the next boot. Each filter of a host has a journal of its own.
func (fw *Firewall) Journal() bans.Journal {
	dir, name := stateDir, bansFile
	if path := fw.lastGoodPath(); path != "" {
		dir = filepath.Dir(path)
	}
	if fw.options.PinPath != loader.DefaultPinPath {
		name += "@" + url.PathEscape(fw.options.PinPath)
	}
	return bans.NewJournal(filepath.Join(dir, name))
}

// restoring is a kernel in which a filter begins with the bans that have been written down.
type restoring struct {
	Kernel
	journal func() bans.Journal
}

// banBatch is how many bans are put in force at once.
const banBatch = 4096

// Up implements Kernel.
func (k restoring) Up(ctx context.Context, o loader.Options) (*loader.UpReport, error) {
	var warnings []string
	o.Bans = func(put func([]maps.Ban) error) error {
		journal := k.journal()
		batch := make([]maps.Ban, 0, banBatch)
		damaged, err := journal.Load(time.Now(), func(b maps.Ban) error {
			batch = append(batch, b)
			if len(batch) < cap(batch) {
				return nil
			}
			err := put(batch)
			batch = batch[:0]
			return err
		})
		if err == nil && len(batch) > 0 {
			err = put(batch)
		}
		if damaged > 0 {
			warnings = append(warnings, fmt.Sprintf("%s: %d lines are damaged, as after a crash, and left out", journal.Path(), damaged))
		}
		if errors.Is(err, fs.ErrPermission) { // who keeps none has none
			err = nil
		}
		return err
	}
	report, err := k.Kernel.Up(ctx, o)
	if report != nil {
		report.Warnings = append(report.Warnings, warnings...)
	}
	return report, err
}

// TidyBans makes room: bans that have ended go out of the filter, and out of the journal where they make up much of it. It
// returns how many went out of the filter.
func (fw *Firewall) TidyBans(ctx context.Context) (ended int, err error) {
	c, err := fw.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer c.end()
	f, err := fw.openToChange(ctx)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if ended, err = f.ForgetEndedBans(); err != nil {
		return ended, err
	}
	// What has ended since the journal was last written anew counts, and not only what has ended now: as long as bans come
	// at the pace at which they end, that is never much at once.
	journal := fw.Journal()
	lines, err := journal.Lines()
	if err != nil {
		return ended, err
	}
	if lines <= spareLines {
		return ended, nil
	}
	live := 0
	for _, err := range f.Bans() {
		if err != nil {
			return ended, err
		}
		if live++; lines <= 2*live+spareLines {
			return ended, nil
		}
	}
	return ended, journal.Compact(time.Now())
}

// spareLines is how many lines of the journal may say nothing, however few bans there are.
const spareLines = 1024
