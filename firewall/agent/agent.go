// SPDX-License-Identifier: Apache-2.0

// Package agent keeps a filter in step with its host: with interfaces that come and go, addresses and the policy
// file. It holds no state that decides anything. What is to be filtered is read from the pins each time, so
// commands need not know of it; and when it is killed the filter runs on.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

const (
	settleTime = 100 * time.Millisecond // from a change till what it needs is done that is not urgent: they come in bursts
	retuneTime = 5 * time.Second        // at least between two loads for a new MAC address
	resyncTime = time.Minute            // everything is looked at, should a notice have been lost
)

// Options says what the agent keeps, and how.
type Options struct {
	PinPath     string
	Config      string // the policy file
	ConfigGiven bool   // rather than the one that a running filter came from
	Interfaces  []string
	Mode        loader.Mode
	BuiltIn     func() (*policy.Policy, error) // for when there is neither a file nor a last good policy
	LockFile    func(path string) (release func())
	LastGood    LastGood
	RunDir      string           // for the file that names the process
	Deadlines   string           // where commands keep them, as loader.StateDir
	Hangup      <-chan os.Signal // SIGHUP
	Log         *Log
}

// Agent is a running agent.
type Agent struct {
	Options
	firewall  Firewall
	service   service
	files     *fileWatcher
	seen      string         // what the policy file was when it was last read
	existed   bool           // it has been read
	named     []string       // the interfaces that it named
	problem   string         // what is wrong with it
	waiting   *policy.Policy // to be applied when it is known to which interface
	here      []string       // interfaces that were filtered when it last told
	down      bool           // nothing is filtered
	lastError string         // that was told
	endLook   func()         // ends the look that goes on
	seenPast  chan sight     // what looks have found
	blind     bool           // looks are not permitted, which was told
	retuned   time.Time      // when programs were last loaded for a new MAC address
	refusals  refusals
}

// Run keeps the filter until ctx ends. The filter stays.
func Run(ctx context.Context, firewall Firewall, o Options) error {
	release, err := lock(o.RunDir, o.PinPath)
	if err != nil {
		return err
	}
	defer release()
	a := &Agent{Options: o, firewall: firewall, seenPast: make(chan sight)}
	if a.files, err = watchFiles(); err != nil {
		return err
	}
	defer a.files.Close()
	// Before the first look at the host, so that nothing can change unseen.
	changes, err := firewall.Watch(ctx)
	if err != nil {
		return err
	}
	if err := a.start(); err != nil {
		return err
	}
	a.attach()
	a.watchRefusals()
	a.tell()
	a.service.ready()
	err = a.loop(ctx, changes)
	a.service.stopping()
	a.Log.Info("the agent ends; the filter stays")
	return err
}

func (a *Agent) loop(ctx context.Context, changes <-chan host.Change) error {
	settle := time.NewTimer(0)
	resync := time.NewTicker(resyncTime)
	defer resync.Stop()
	sweep := time.NewTimer(sweepTime)
	look := time.NewTicker(lookTime)
	defer look.Stop()
	relinked := true // an interface of the filter has changed, and its driver may have made its queues anew
	var alive <-chan time.Time
	if period := watchdog(); period > 0 {
		alive = time.Tick(period)
	}
	settling := true
	soon := func() {
		if !settling {
			settling = true
			settle.Reset(settleTime)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case change, ok := <-changes:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("the kernel tells of changes no more")
			}
			if change.Lost || change.Link != "" && a.firewall.Wants(a.PinPath, change.Link) {
				a.attach()
				relinked = true
			}
			soon()
		case <-settle.C:
			settling = false
			a.settle()
			if relinked {
				relinked = false
				look.Reset(lookTime)
				a.look(ctx)
			}
			if a.prepare(func() bool { return len(changes) == 0 }) {
				soon()
			}
		case <-resync.C:
			a.lastError = "" // what is still wrong is told again
			a.actWhenDue()
			a.attach()
			a.reload()
			soon()
			debug.FreeOSMemory() // that of loading programs, which is seldom
		case <-look.C:
			a.look(ctx)
		case s := <-a.seenPast:
			a.goOver(s)
			a.tell()
		case <-sweep.C:
			sweep.Reset(a.sweep())
		case <-a.files.policy:
			a.reload()
		case <-a.files.pins:
			soon()
		case <-a.Hangup:
			a.service.reloading()
			a.hangup()
			a.tell()
			a.service.ready()
		case <-alive:
			a.service.alive()
		}
	}
}

// attach filters interfaces that have appeared. It is what must not wait.
func (a *Agent) attach() {
	report, err := a.firewall.Attach(a.PinPath, a.Mode)
	if errors.Is(err, loader.ErrNotRunning) {
		return
	}
	a.complain(err)
	if report == nil {
		return
	}
	for _, i := range report.Slow {
		up, err := a.firewall.Up(loader.Options{PinPath: a.PinPath, Interfaces: []string{i.Name}, Mode: i.Mode, Wait: true})
		a.complain(err)
		if err == nil {
			report.Warnings = append(report.Warnings, up.Warnings...)
			report.Attached = append(report.Attached, i)
		}
	}
	a.warn(report.Warnings)
	for _, i := range report.Attached {
		a.Log.Info("%s has appeared, and is filtered", i.Name)
	}
}

// settle does what a change asks for that is not urgent.
func (a *Agent) settle() {
	defer a.tell()
	a.follow()
	f, err := a.firewall.Open(a.PinPath)
	if err != nil {
		a.notFiltering(err)
		return
	}
	defer f.Close()
	a.waiting = nil
	if a.down {
		a.down = false
		a.Log.Info("the filter is up again")
	}
	if config := f.Config(); config != "" && config != a.Config {
		a.Log.Info("the policy file is %s now", config)
		a.Config, a.seen = config, ""
		a.follow()
		a.reload()
	}
	a.complain(f.SyncLocal())
	changed, err := f.HostChanges()
	a.complain(err)
	switch {
	case changed.MTU != "":
		a.renew(fmt.Sprintf("%s: MTU raised to %d, programs reloaded", changed.MTU, changed.Bytes))
	case changed.MAC != "" && time.Since(a.retuned) > retuneTime:
		a.retuned = time.Now()
		done := ""
		if changed.Changed {
			done = changed.MAC + " has a new MAC address: programs reloaded"
		}
		a.renew(done)
	}
}

// follow watches what commands and editors write.
func (a *Agent) follow() { a.files.follow(a.Config, loader.PinDirs(a.PinPath)) }

// renew loads the programs for the host as it is now, with the policy as it is. Done is what to say then, if anything.
func (a *Agent) renew(done string) {
	report, err := a.firewall.Up(loader.Options{PinPath: a.PinPath, Wait: true})
	if errors.Is(err, loader.ErrNotRunning) || errors.Is(err, unix.ENOLINK) || errors.Is(err, unix.ENODEV) {
		return // taken down a moment ago, or an interface went away, which is a change of its own
	}
	a.complain(err)
	if err == nil {
		if done != "" {
			a.Log.Info("%s", done)
		}
		a.warn(report.Warnings)
	}
}

// notFiltering looks at why there is no filter: somebody has taken it down, which is to be respected, or nobody knew
// what to filter till now.
func (a *Agent) notFiltering(err error) {
	if !errors.Is(err, loader.ErrNotRunning) {
		a.complain(err)
		return
	}
	if a.waiting != nil {
		a.complain(a.apply(a.waiting, nil))
		return
	}
	if !a.down {
		a.down = true
		a.Log.Warn("the filter was taken down, and this host is unprotected; \"portcullis up\" or a SIGHUP puts it up again")
	}
}

// complain tells of an error, and of the same one only once.
func (a *Agent) complain(err error) {
	if err == nil {
		return
	}
	if text := err.Error(); text != a.lastError {
		a.lastError = text
		a.Log.Error("%s", text)
	}
}

func (a *Agent) warn(sentences []string) {
	for _, s := range sentences {
		a.Log.Warn("%s", s)
	}
}

// tell says in a line what is filtered.
func (a *Agent) tell() {
	status := "this host is unprotected: no interface is filtered"
	if f, err := a.firewall.Open(a.PinPath); err == nil {
		defer f.Close()
		interfaces, err := f.Interfaces()
		a.complain(err)
		var here, away []string
		for _, i := range interfaces {
			if i.Present {
				here = append(here, i.Name)
			} else {
				away = append(away, i.Name)
			}
			if i.Absence() == loader.AbsentGone && slices.Contains(a.here, i.Name) {
				a.Log.Warn("%s is gone; waiting for it", i.Name)
			}
		}
		a.here = here
		var parts []string
		if len(here) > 0 {
			parts = append(parts, "filtering "+strings.Join(here, ", "))
		}
		if len(away) > 0 {
			parts = append(parts, "waiting for "+strings.Join(away, ", "))
		}
		status = strings.Join(parts, "; ")
	}
	if a.problem != "" {
		status += "; " + a.problem
	}
	a.service.say(status)
}
