// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
)

// StateDir is where deadlines are kept. They are about this boot only: after the next one the file counts.
const StateDir = "/run/portcullis/deadlines"

// Files of one filter below StateDir, in a directory that is called after its pin path.
const (
	recordFile      = "record.json"
	connectionsFile = "connections" // those that a try found, one a line
	keeperFile      = "keeper.lock"
	keeperLog       = "keeper.log"
)

// Instant is a time since boot, with the time that the machine was suspended: no clock that is set moves it.
type Instant time.Duration

// Now is the present.
func Now() Instant {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // which no kernel refuses
	return Instant(ts.Nano())
}

// After is the instant in d from now.
func After(d time.Duration) Instant { return Now() + Instant(d) }

// Left is the time until then; it is negative when that has passed.
func (i Instant) Left() time.Duration { return time.Duration(i - Now()) }

// Deadlines is what will happen by itself to a filter, and what last has.
type Deadlines struct {
	Boot  string      `json:"boot"`
	Netns uint64      `json:"netns"` // cookie
	Try   *Try        `json:"try,omitempty"`
	Timed []TimedRule `json:"timed,omitempty"`
	Ended *EndedTry   `json:"ended,omitempty"`
}

// Try is a policy that is put back when nobody confirms it.
type Try struct {
	File    string    `json:"file"`
	Text    string    `json:"text"`     // of the file, as it was put in force
	Config  string    `json:"config"`   // the file that a confirmation writes
	Before  *Snapshot `json:"before"`   // nil when nothing ran
	InForce bool      `json:"in_force"` // false while it is being put in force, or when that was cut off
	Due     Instant   `json:"due"`
}

// TimedRule is a rule that is open for the time being, until then.
type TimedRule struct {
	Rule policy.Rule `json:"rule"`
	Due  Instant     `json:"due"`
}

// EndedTry tells what became of the last try.
type EndedTry struct {
	File     string  `json:"file"`
	Reverted bool    `json:"reverted"` // or else it was confirmed
	At       Instant `json:"at"`
}

// next returns when something is due first.
func (d *Deadlines) next() (first Instant, ok bool) {
	var all []Instant
	if d.Try != nil {
		all = append(all, d.Try.Due)
	}
	for _, r := range d.Timed {
		all = append(all, r.Due)
	}
	if len(all) == 0 {
		return 0, false
	}
	return slices.Min(all), true
}

// Overdue tells that something should have happened already.
func (d *Deadlines) Overdue() bool {
	first, ok := d.next()
	return ok && first.Left() <= 0
}

// RuleDue returns when a rule closes by itself.
func (d *Deadlines) RuleDue(r policy.Rule) (due Instant, ok bool) {
	for _, t := range d.Timed {
		if t.Rule.Equal(r) {
			return t.Due, true
		}
	}
	return 0, false
}

// SetDue makes rules close by themselves.
func (d *Deadlines) SetDue(rules []policy.Rule, due Instant) {
	d.ForgetRules(rules)
	for _, r := range rules {
		d.Timed = append(d.Timed, TimedRule{r, due})
	}
}

// ForgetRules leaves rules as they are, for good.
func (d *Deadlines) ForgetRules(rules []policy.Rule) {
	index := policy.IndexRules(rules)
	d.Timed = slices.DeleteFunc(d.Timed, func(t TimedRule) bool {
		_, ok := index[t.Rule.Key()]
		return ok
	})
}

// stateDir is the directory of one filter below root.
func stateDir(root, pinPath string) string {
	return filepath.Join(root, url.PathEscape(pinPath))
}

// ReadDeadlines returns the deadlines of the filter under a pin path.
func ReadDeadlines(root, pinPath string) (*Deadlines, error) {
	return readRecord(stateDir(root, pinPath))
}

func readRecord(dir string) (*Deadlines, error) {
	text, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return &Deadlines{}, nil // who may not read these keeps none of his own
	}
	if err != nil {
		return nil, err
	}
	var recorded, now Deadlines
	if err := json.Unmarshal(text, &recorded); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, recordFile), err)
	}
	if err := now.stamp(); err != nil {
		return nil, err
	}
	if recorded.Boot != now.Boot {
		return &Deadlines{}, nil
	}
	if _, pending := recorded.next(); pending && recorded.Netns != now.Netns {
		return nil, fmt.Errorf("%w, and something is due there: if that namespace is gone, remove %s", ErrOtherNamespace, dir)
	}
	recorded.Netns = now.Netns
	return &recorded, nil
}

// stamp records what the deadlines hold for, unless they tell.
func (d *Deadlines) stamp() error {
	if d.Boot != "" {
		return nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	d.Boot = string(bytes.TrimSpace(boot))
	d.Netns, err = host.NetnsCookie()
	return err
}
