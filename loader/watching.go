// SPDX-License-Identifier: Apache-2.0

package loader

// A filter that only watches decides and counts as any other, and lets everything pass. A byte of the state says so, and
// nothing else: a flip is one store, and whoever is killed leaves either the one or the other.

// flip makes the running filter enforce its policy, or only watch. Live connections that nothing lets in became flows with
// what this host sent; those that have been silent are entered as at "up".
func (c *change) flip() error {
	watches := c.options.Policy.WatchOnly
	if !watches {
		if err := c.enterLive(); err != nil {
			return err
		}
	}
	if err := c.old.set.SetWatching(watches); err != nil {
		return err
	}
	c.old.running.Policy.WatchOnly = watches
	if watches {
		return nil
	}
	seeded := c.report.Seeded
	err := c.enterLive() // what came in since
	c.report.Seeded = seeded
	return err
}

// enterLive makes flows of the live connections, while a change is made in place.
func (c *change) enterLive() error {
	t, err := c.old.tools()
	if err == nil {
		c.report.Seeded, err = enterLive(t, c.options.Policy, c.old.running.HZ)
	}
	return err
}

// beginWatching is for a change that is not made in place. A new policy that only watches is to drop nothing at any moment,
// so what is in force ceases to before. Whoever is killed in between leaves the old policy, watching.
func (c *change) beginWatching() error {
	if was, err := c.set.Watching(); was || err != nil || !c.options.Policy.WatchOnly {
		return err
	}
	c.onUndo(func() error { return c.set.SetWatching(false) })
	return c.set.SetWatching(true)
}

// endWatching enforces a new policy once it is in force at each hook.
func (c *change) endWatching() error {
	if was, err := c.set.Watching(); !was || err != nil || c.options.Policy.WatchOnly {
		return err
	}
	return c.set.SetWatching(false)
}
