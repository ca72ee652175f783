// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// restoring is a kernel in which a filter begins with the bans that have been written down.
type restoring struct {
	Kernel
	fw *Firewall
}

// banBatch is how many bans are put in force at once.
const banBatch = 4096

// Up implements Kernel.
func (k restoring) Up(ctx context.Context, o loader.Options) (*loader.UpReport, error) {
	var warnings []string
	o.Bans = func(put func([]maps.Ban) error) error {
		journal := k.fw.Journal()
		var guard *bans.Guard
		var spared []string
		batch := make([]maps.Ban, 0, banBatch)
		damaged, err := journal.Load(time.Now(), func(b maps.Ban) error {
			if guard == nil { // whom nobody has banned is not looked for
				var failed error
				if guard, failed = k.fw.vitalGuard(); failed != nil {
					warnings = append(warnings, fmt.Sprintf("bans may hit what this host lives on: %v", failed))
				}
			}
			if !b.Forced {
				if hit, found := guard.Hit(b.Prefix); found {
					spared = append(spared, fmt.Sprintf("%s is not banned again, as it %s; \"portcullis ban --force\" bans it", bans.Text(b.Prefix), hit))
					return nil
				}
			}
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
		warnings = append(warnings, foldTexts(spared)...)
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
