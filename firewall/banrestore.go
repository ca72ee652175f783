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
