// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// ledgerView is what status --check finds.
type ledgerView struct {
	Agrees     bool                 `json:"agrees"`
	Interfaces []loader.LedgerCheck `json:"interfaces"`
}

func (a *app) checkLedger(ctx context.Context) error {
	if err := a.privileged(); err != nil {
		return err
	}
	checks, err := a.firewall.CheckLedger(ctx)
	if err != nil {
		return err
	}
	disagrees := slices.ContainsFunc(checks, func(c loader.LedgerCheck) bool { return !c.Agrees })
	err = a.print(ledgerView{!disagrees, list(checks)}, func() {
		rows := [][]string{{"INTERFACE", "DEVICE", "COUNTED", "DIFFERENCE", "NOTE"}}
		for _, c := range checks {
			note := c.Note
			if c.Merged > 0 && note == "" {
				note = fmt.Sprintf("%d frames were merged into others", c.Merged)
			}
			rows = append(rows, []string{c.Interface, strconv.FormatUint(c.Device, 10), strconv.FormatUint(c.Ledger, 10),
				strconv.FormatInt(c.Difference, 10), note})
		}
		a.noted(rows)
		frames := func(c loader.LedgerCheck) bool { return c.Device != 0 || c.Ledger != 0 }
		switch {
		case disagrees:
		case !slices.ContainsFunc(checks, frames):
			a.printf("no traffic in this moment: nothing was compared\n")
		default:
			a.printf("adds up\n")
		}
	})
	for _, c := range checks {
		if !c.Agrees {
			err = errors.Join(err, differs(c))
		}
	}
	return err
}

func differs(c loader.LedgerCheck) error {
	if c.Unfiltered != "" {
		return errors.New(c.Unfiltered)
	}
	if c.Difference > 0 {
		return fmt.Errorf("%s: the ledger has %d packets where the device (%s) has received %d frames: %d came past the filter, or were lost before it; \"portcullis doctor %s\" looks closer",
			c.Interface, c.Ledger, c.Counter, c.Device, c.Difference, quote.Shell(c.Interface))
	}
	return fmt.Errorf("%s: the ledger has %d packets where the device (%s) has received %d frames: %d are counted twice, or the driver does not count all that it hands to XDP",
		c.Interface, c.Ledger, c.Counter, c.Device, -c.Difference)
}
