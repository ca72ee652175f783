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

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/fetch"
	"github.com/portcullis-firewall/portcullis/firewall/monitor"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

const (
	settleTime = 100 * time.Millisecond // from a change till what it needs is done that is not urgent: they come in bursts
	retuneTime = 5 * time.Second        // at least between two loads for a new MAC address
	resyncTime = time.Minute            // everything is looked at, should a notice have been lost
	waitTime   = time.Second            // for a command that changes the firewall: an interface may appear meanwhile
)

// Options says what the agent keeps, and how.
type Options struct {
	Firewall   *firewall.Firewall
	Interfaces []string
	Mode       loader.Mode
	Hangup     <-chan os.Signal // SIGHUP
	Log        *Log
	Health     *Health // nil: nobody watches it
	// Beside runs once the filter is up, for as long as the agent does; nil: nothing does.
	Beside func(context.Context)
}

// Agent is a running agent.
type Agent struct {
	Options
	fw         *firewall.Firewall
	file       *firewall.Follower // of the policy file
	service    service
	files      *fileWatcher
	here       []string   // interfaces that were filtered at the last report
	down       bool       // nothing is filtered
	lastError  string     // that was logged
	endLook    func()     // ends the look that goes on
	watching   bool       // nothing is dropped, which was logged
	watchTold  time.Time  // when
	unattached bool       // another command was at work when an interface was to be filtered
	busy       bool       // or when something else was to be done
	seenPast   chan sight // what looks have found
	blind      bool       // looks are not permitted, which was logged
	mended     time.Time  // when interfaces were last filtered that nothing told of
	halved     []string   // interfaces that were found filtered in one direction only
	retuned    time.Time  // when programs were last loaded for a new MAC address
	refusals   refusals
	tidied     time.Time         // when bans that have ended were last taken out
	fetching   *fetch.Plan       // of lists
	unfetched  map[string]string // by URL: what was logged of lists that could not be fetched

	journal     *monitor.Journal
	started     time.Time
	journaling  bool // packets are read for it
	logs        policy.Log
	logsRead    time.Time      // when that was in force
	sampled     *loader.Sample // the last one for the journal, whose rules need not be read again
	logged      chan loader.LoggedPacket
	unjournaled chan error // the reading has ended
}

func newAgent(o Options) *Agent {
	return &Agent{Options: o, fw: o.Firewall.Waiting(waitTime), seenPast: make(chan sight), started: time.Now(),
		journal: monitor.NewJournal(), logged: make(chan loader.LoggedPacket), unjournaled: make(chan error),
		fetching: o.Firewall.FetchPlan(), unfetched: make(map[string]string), tidied: time.Now().Add(-tidyTime), // to do it soon
		file: o.Firewall.Follow(firewall.FollowRequest{Interfaces: o.Interfaces, Mode: o.Mode, Wait: waitTime})}
}

// Run keeps the filter until ctx ends. The filter stays.
func Run(ctx context.Context, o Options) error {
	release, err := o.Firewall.ClaimAgent()
	switch {
	case errors.As(err, new(*firewall.AgentError)):
		return err
	case err != nil:
		o.Log.Warn("%v: nothing keeps a second agent away", err)
	default:
		defer release()
	}
	o.Log.health = o.Health
	o.Health.change(func(s *HealthState) { s.Started = time.Now() })
	a := newAgent(o)
	if a.files, err = watchFiles(); err != nil {
		return err
	}
	defer a.files.Close()
	// Before the first look at the host, so that nothing can change unseen.
	changes, err := a.fw.Watch(ctx)
	if err != nil {
		return err
	}
	if err := a.start(ctx); err != nil {
		return err
	}
	a.attach(ctx)
	go a.fetching.Run(ctx)
	a.watchRefusals(ctx)
	a.report(ctx)
	a.service.ready()
	end := a.runBeside(ctx)
	err = a.loop(ctx, changes)
	a.service.stopping()
	end()
	a.tellOfMore(context.WithoutCancel(ctx), true)
	a.Log.Info("the agent ends; the filter stays")
	return err
}

// runBeside starts what runs beside the agent, and returns what ends it.
func (a *Agent) runBeside(ctx context.Context) (end func()) {
	if a.Beside == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Beside(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// start puts the filter up, or takes over the one that runs.
func (a *Agent) start(ctx context.Context) error {
	a.follow()
	notes, err := a.file.Start(ctx)
	a.log(notes)
	a.follow()
	return err
}

func (a *Agent) loop(ctx context.Context, changes <-chan host.Change) error {
	settle := time.NewTimer(0)
	resync := time.NewTicker(resyncTime)
	defer resync.Stop()
	sweep := time.NewTimer(sweepTime)
	look := time.NewTicker(lookTime)
	defer look.Stop()
	more := time.NewTicker(time.Second)
	defer more.Stop()
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
	var delayed <-chan time.Time // while another command is at work
	for {
		if delayed == nil && (a.file.Delayed() || a.unattached || a.busy) {
			delayed = time.After(waitTime)
		}
		select {
		case <-ctx.Done():
			return nil
		case change, ok := <-changes:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("netlink subscription closed: changes of the network go unnoticed from now on")
			}
			if change.Lost || change.Link != "" && a.fw.Wants(change.Link) {
				a.attach(ctx)
				relinked = true
			}
			a.fetching.Retry()
			soon()
		case <-settle.C:
			settling = false
			a.settle(ctx)
			if relinked {
				relinked = false
				look.Reset(lookTime)
				a.look(ctx)
			}
			if a.prepare(ctx, func() bool { return len(changes) == 0 }) {
				soon()
			}
		case <-resync.C:
			a.lastError = "" // what is still wrong is logged again
			a.attach(ctx)    // which must not wait
			a.complain(a.fw.CatchUp(ctx))
			a.tidyBans(ctx)
			a.reloadIfSteady(ctx)
			soon()
			debug.FreeOSMemory() // that of loading programs, which is seldom
		case <-look.C:
			a.look(ctx)
		case s := <-a.seenPast:
			a.goOver(ctx, s)
			a.report(ctx)
		case r := <-a.fetching.Reports():
			a.fetched(ctx, r)
		case <-sweep.C:
			sweep.Reset(a.sweep(ctx))
		case p := <-a.logged:
			a.journalPacket(ctx, p)
		case err := <-a.unjournaled:
			a.journalEnded(err)
			soon()
		case <-more.C:
			a.tellOfMore(ctx, false)
		case <-a.files.policy:
			a.follow() // a link may lead elsewhere now
			a.reload(ctx)
		case <-delayed:
			delayed = nil
			if a.unattached {
				a.attach(ctx)
			}
			if a.file.Delayed() {
				a.reload(ctx)
			}
			if a.busy {
				a.busy = false
				soon()
			}
		case <-a.files.pins:
			soon()
		case <-a.Hangup:
			a.service.reloading()
			a.hangup(ctx)
			a.report(ctx)
			a.service.ready()
		case <-alive:
			a.service.alive()
		}
	}
}

// settle does what a change asks for that is not urgent.
func (a *Agent) settle(ctx context.Context) {
	defer a.report(ctx)
	a.follow()
	f, err := a.fw.View(ctx)
	if err != nil {
		a.notFiltering(ctx, err)
		return
	}
	defer f.Close()
	a.file.StopWaiting()
	if a.down {
		a.down = false
		a.Log.Info("the filter is up again")
	}
	if config := f.Config(); config != "" && config != a.file.Config() {
		a.Log.Info("the policy file is %s now", config)
		a.file.SetConfig(config)
		a.follow()
		a.reload(ctx)
	}
	a.mend(ctx, f)
	a.followJournal(ctx, f)
	a.complain(f.SyncHost())
	a.log(a.file.Spare(ctx, f))
	changed, err := f.HostChanges()
	a.complain(err)
	switch {
	case changed.MTU != "":
		a.renew(ctx, fmt.Sprintf("%s: MTU raised to %d, programs reloaded", changed.MTU, changed.Bytes))
	case changed.MAC != "" && time.Since(a.retuned) > retuneTime:
		a.retuned = time.Now()
		done := ""
		if changed.Changed {
			done = changed.MAC + " has a new MAC address: programs reloaded"
		}
		a.renew(ctx, done)
	}
}

// follow watches what commands and editors write.
func (a *Agent) follow() {
	a.files.follow(a.file.Files(), loader.PinDirs(a.fw.PinPath()))
	a.fetching.Set(a.file.Fetched())
}

// reload puts the policy file in force if it has changed, or one of its lists.
func (a *Agent) reload(ctx context.Context) {
	before := a.file.Files()
	a.log(a.file.ApplyChanged(ctx))
	if !slices.Equal(before, a.file.Files()) {
		a.follow()
		a.log(a.file.ApplyChanged(ctx)) // as it may have changed unseen
	}
	a.fetching.Set(a.file.Fetched()) // a copy may be gone
	a.report(ctx)
}

// reloadIfSteady is reload for when nothing shows that the file is complete. One that somebody has open and writes is
// read when it has not changed since the time before.
func (a *Agent) reloadIfSteady(ctx context.Context) {
	if a.files.isWriting() && !a.file.Steady() {
		return
	}
	a.reload(ctx)
}

// hangup does what SIGHUP asks for: the file is put in force, on all of its interfaces, also when nothing is filtered at
// the moment.
func (a *Agent) hangup(ctx context.Context) {
	a.down = false
	a.log(a.file.Reload(ctx))
	a.follow()
}

// renew loads the programs for the host as it is now, with the policy as it is. Done is what to say then, if anything.
func (a *Agent) renew(ctx context.Context, done string) {
	warnings, err := a.fw.Renew(ctx)
	if errors.Is(err, loader.ErrNotRunning) || errors.Is(err, unix.ENOLINK) || errors.Is(err, unix.ENODEV) {
		return // taken down a moment ago, or an interface went away, which is a change of its own
	}
	a.complain(err)
	if errors.Is(err, firewall.ErrLocked) {
		a.retuned = time.Time{}
	}
	if err == nil {
		if done != "" {
			a.Log.Info("%s", done)
		}
		a.warn(warnings)
	}
}

// notFiltering looks at why there is no filter: somebody has taken it down, which is to be respected, or nobody knew
// what to filter till now.
func (a *Agent) notFiltering(ctx context.Context, err error) {
	if !errors.Is(err, loader.ErrNotRunning) {
		a.complain(err)
		return
	}
	if a.file.Waits() {
		a.log(a.file.ApplyWaiting(ctx))
		a.busy = a.busy || a.file.Delayed() && a.file.Waits()
		return
	}
	if !a.down {
		a.down = true
		a.Log.Warn("the filter was taken down, and this host is unprotected; \"portcullis up\" or a SIGHUP puts it up again")
	}
}

// log logs what the follower of the policy file has to say.
func (a *Agent) log(notes []firewall.Note) {
	for _, n := range notes {
		switch n.Level {
		case firewall.Error:
			a.Log.Error("%s", n.Text)
		case firewall.Warning:
			a.Log.Warn("%s", n.Text)
		default:
			a.Log.Info("%s", n.Text)
		}
	}
}

// complain logs an error, and the same one only once in a row.
func (a *Agent) complain(err error) {
	if errors.Is(err, firewall.ErrLocked) {
		a.busy = true // the loop comes back to it
		return
	}
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

// watchTime is how often it is logged that nothing is dropped.
const watchTime = time.Hour

// tellWatching logs that the filter only watches when that begins, as long as it lasts, and when it ends. It reports whether
// the filter does.
func (a *Agent) tellWatching(watching bool, now time.Time) bool {
	switch {
	case watching && (!a.watching || now.Sub(a.watchTold) >= watchTime):
		a.watchTold = now
		a.Log.Warn("watching only: nothing is dropped, until \"enforce: true\" is in force")
	case !watching && a.watching:
		a.Log.Info("the policy is enforced: what it does not let in is dropped")
	}
	a.watching = watching
	return watching
}

// report sets the line that systemd shows to what is filtered, and logs interfaces that are gone.
func (a *Agent) report(ctx context.Context) {
	status := "this host is unprotected: no interface is filtered"
	f, err := a.fw.View(ctx)
	switch {
	case errors.Is(err, firewall.ErrLocked):
		a.complain(err)
		return
	case err != nil && !errors.Is(err, loader.ErrNotRunning):
		status = "the filter cannot be looked at: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	case err == nil:
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
		named, err := f.Named()
		a.complain(err)
		for _, name := range named {
			if policy.IsPattern(name) {
				away = append(away, name)
			}
		}
		if len(here) > 0 {
			parts = append(parts, "filtering "+strings.Join(here, ", "))
		}
		if len(away) > 0 {
			parts = append(parts, "waiting for "+strings.Join(away, ", "))
		}
		status = strings.Join(parts, "; ")
		watching, err := f.Watching()
		a.complain(err)
		if err == nil && a.tellWatching(watching, time.Now()) {
			status = "watching only, nothing is dropped; " + status
		}
	}
	problem := a.file.Problem()
	if problem != "" {
		status += "; " + problem
	}
	a.Health.change(func(s *HealthState) { s.Problem, s.Looked = problem, time.Now() })
	a.service.say(status)
}
