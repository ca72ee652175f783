// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/loader/lock"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// change is the right to change the firewall. One process has it at a time, and first does what is overdue.
type change struct {
	*schedule.Schedule
	fw     *Firewall
	failed error    // why what is overdue could not be done
	unlock []func() // in the order in which they were locked
	keeps  bool     // a schedule: this process may write there
	unkept error    // or why it cannot
}

// begin waits until no other process changes the firewall, and does what is overdue.
func (fw *Firewall) begin(ctx context.Context) (*change, error) {
	policy.ForgetServices() // the agent has read them at an earlier change
	c := &change{fw: fw}
	unlock, err := fw.store.Lock(fw.waiting(ctx))
	switch {
	case err == nil:
		c.unlock, c.keeps = append(c.unlock, unlock), true
	case !isUnwritable(err):
		return nil, err
	default:
		c.unkept = err
	}
	if c.Schedule, err = fw.store.Read(); err != nil {
		c.end()
		return nil, err
	}
	c.failed = c.catchUp(ctx)
	return c, nil
}

// beginToChange is begin for what cannot be done while a policy is on trial: the end of the trial would undo it.
func (fw *Firewall) beginToChange(ctx context.Context) (*change, error) {
	return fw.beginUnless(ctx, func(error) bool { return false })
}

// beginToRepair is beginToChange for Up, which is what helps where a damaged or older filter keeps rules from being
// closed in time. It ends them anyway.
func (fw *Firewall) beginToRepair(ctx context.Context) (*change, error) {
	return fw.beginUnless(ctx, func(err error) bool {
		return errors.Is(err, loader.ErrDamaged) || errors.Is(err, loader.ErrOlderSchema)
	})
}

// beginUnless is begin, unless a policy is on trial or what is overdue has failed for a reason that is not excused.
func (fw *Firewall) beginUnless(ctx context.Context, excused func(error) bool) (*change, error) {
	c, err := fw.begin(ctx)
	if err != nil {
		return nil, err
	}
	if err = c.failed; excused(err) {
		err = nil
	}
	if err == nil && c.Trial != nil {
		err = &TrialError{*c.Trial}
	}
	if err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

// beginWithFilter is beginToChange with the filter that is to be changed, which the caller closes.
func (fw *Firewall) beginWithFilter(ctx context.Context) (*change, Filter, error) {
	c, err := fw.beginToChange(ctx)
	if err != nil {
		return nil, nil, err
	}
	f, err := fw.openToChange(ctx)
	if err != nil {
		c.end()
		return nil, nil, err
	}
	return c, f, nil
}

// end lets the next one change the firewall.
func (c *change) end() {
	for _, unlock := range slices.Backward(c.unlock) {
		unlock()
	}
	c.unlock = nil
}

// TrialError is returned for a change that the end of a trial would undo.
type TrialError struct{ Trial schedule.Trial }

func (e *TrialError) Error() string {
	return fmt.Sprintf("%s is on trial for another %s: run \"portcullis confirm\" or \"portcullis revert\" first",
		quote.Text(e.Trial.File), schedule.Span(e.Trial.Due.Left()))
}

// isUnwritable reports whether nothing can be kept in a directory: it is another user's, or it is full. Then a change
// has the loader's lock alone, and nothing can be done later by itself.
func isUnwritable(err error) bool {
	return slices.ContainsFunc([]error{fs.ErrPermission, unix.ENOSPC, unix.EDQUOT, unix.EROFS}, func(e error) bool {
		return errors.Is(err, e)
	})
}

// lockFile keeps other firewalls of this host, those under other pin paths, from the same policy file until the change
// ends. It locks a file of root's that stands for it, and not the file's directory, which anybody may lock.
func (c *change) lockFile(ctx context.Context, path string) error {
	dir := filepath.Join(c.fw.options.RunDir, "locks")
	err := schedule.PrivateDir(dir)
	var unlock func()
	if err == nil {
		unlock, err = lock.File(c.fw.waiting(ctx), filepath.Join(dir, lockName(path)))
	}
	switch {
	case err == nil:
		c.unlock = append(c.unlock, unlock)
	case !isUnwritable(err):
		return err
	}
	return nil
}

// lockName returns the name of the lock of a file, which may have several names itself.
func lockName(path string) string {
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
	}
	var dir unix.Stat_t
	if unix.Stat(filepath.Dir(path), &dir) == nil {
		path = fmt.Sprintf("%x:%x/%s", dir.Dev, dir.Ino, filepath.Base(path))
	}
	sum := sha256.Sum256([]byte(path))
	return "file-" + hex.EncodeToString(sum[:16])
}

// startWatchdog sees to it that somebody does what the schedule says, whatever becomes of this process.
func (c *change) startWatchdog(ctx context.Context) error {
	if !c.keeps {
		return fmt.Errorf("keep a schedule in %s: %w", c.fw.store.Path(""), c.unkept)
	}
	return c.fw.kernel.StartWatchdog(ctx, c.fw.store, c.fw.options.PinPath)
}

// save makes the schedule the one that counts.
func (c *change) save() error { return c.fw.store.Save(c.Schedule) }

// catchUp does what is overdue, as when the watchdog was killed.
func (c *change) catchUp(ctx context.Context) error {
	if !c.Overdue() {
		return nil
	}
	closed, err := c.closeTimed(ctx, c.DueRules())
	if err != nil {
		err = fmt.Errorf("close what was open for a time: %w", err)
	}
	c.fw.rulesClosed(closed)
	if trial := c.Trial; trial != nil && trial.Due.Left() <= 0 {
		reverted := c.revert(ctx)
		if reverted == nil {
			c.fw.trialReverted(trial)
		}
		err = errors.Join(err, reverted)
	}
	return err
}

// closeTimed closes rules that still are open for the time being only, also in what the end of a trial will put back. It returns
// those that were open.
func (c *change) closeTimed(ctx context.Context, due []policy.Rule) (closed []policy.Rule, err error) {
	if len(due) == 0 {
		return nil, nil
	}
	f, err := c.fw.View(ctx)
	if err == nil {
		defer f.Close()
		closed, err = closeRuntime(f, due)
	}
	if err != nil && !errors.Is(err, loader.ErrNotRunning) {
		return closed, err
	}
	if c.Trial != nil && c.Trial.Before != nil {
		c.Trial.Before.ForgetRuntime(due)
	}
	c.ForgetRules(due)
	return closed, c.save()
}

// closeRuntime closes those of the rules that are not in the file, and returns them.
func closeRuntime(f Filter, rules []policy.Rule) ([]policy.Rule, error) {
	runtime, err := f.RuntimeRules()
	if err != nil {
		return nil, err
	}
	index := policy.IndexRules(rules)
	open := slices.DeleteFunc(runtime, func(have policy.Rule) bool {
		_, ok := index[have.Key()]
		return !ok
	})
	if _, err = f.CloseRules(open, false); err != nil {
		return nil, err
	}
	return open, nil
}

// revert puts back what was in force before the trial.
func (c *change) revert(ctx context.Context) error {
	var err error
	if c.Trial.Before != nil {
		err = c.fw.restore(ctx, c.Trial.Before)
	} else if _, err = c.fw.kernel.Down(c.fw.waiting(ctx), c.fw.options.PinPath, nil); errors.Is(err, loader.ErrNotRunning) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("put back what was in force before the trial of %s: %w", c.Trial.File, err)
	}
	return c.endTrial(true)
}

// endTrial ends a trial, and leaves in force what is.
func (c *change) endTrial(reverted bool) error {
	c.Ended = &schedule.EndedTrial{File: c.Trial.File, Reverted: reverted, At: schedule.Now()}
	c.Trial = nil
	return c.save()
}

// clear takes everything off the schedule.
func (c *change) clear() error {
	if _, pending := c.Next(); !pending {
		return nil
	}
	c.Trial, c.Timed, c.Ended = nil, nil, nil
	return c.save()
}

// endTimed takes off the schedule whatever was open for a time.
func (c *change) endTimed() error {
	if len(c.Timed) == 0 {
		return nil
	}
	c.Timed = nil
	return c.save()
}

// forgetTimed takes the rules off the schedule.
func (c *change) forgetTimed(rules []policy.Rule) error {
	n := len(c.Timed)
	c.ForgetRules(rules)
	if len(c.Timed) == n {
		return nil
	}
	return c.save()
}
