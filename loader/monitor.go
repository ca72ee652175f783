// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// MonitorOptions says which packets a monitor shows. What is left out does not matter.
type MonitorOptions struct {
	From, To   netip.Prefix // of one family
	Port       uint16       // of either end
	ToPort     uint16       // of the destination
	Protocol   *policy.Protocol
	Interfaces []string      // maps.MaxReaderInterfaces at most
	Reasons    []maps.Reason // nil: all that drop, and with Pass all
	Rule       *policy.Rule  // what this rule lets in, and nothing else
	Pass       bool          // what passes, too

	Snaplen int // bytes of a frame, maps.MaxSnaplen at most
	Rate    int // packets of a reason that a CPU shows a second
}

// MonitoredPacket is a packet that a monitor shows.
type MonitoredPacket struct {
	Time      time.Time
	Interface string // its name, or its index when it is gone
	Outbound  bool
	Reason    maps.Reason
	Rule      string // that let it in, as it was written; "" for other reasons
	Length    int    // bytes of the whole frame
	Ethernet  bool   // the frame begins with an Ethernet header, else with that of IP
	Frame     []byte // its first bytes
}

// Monitored is what a monitor has to tell at a time.
type Monitored struct {
	Packets []MonitoredPacket      // in the order of their times
	Missed  map[maps.Reason]uint64 // packets that were asked for and not shown, since the last time; those of rules under RuleReason(0)
	Notes   []string               // what happened to the filter
}

const (
	monitorPollTime  = 50 * time.Millisecond  // between two looks at the buffers: no packet wakes the reader
	monitorCheckTime = 100 * time.Millisecond // between two looks at the pins
	monitorRenewTime = time.Second
	monitorLease     = 10 * time.Second // how long the datapath shows packets to a reader that says nothing
	monitorBatch     = 4096             // packets of a CPU
	monitorRing      = 512 << 10        // bytes for each CPU
	monitorWideRing  = 4 << 20          // where more than headers are shown
	monitorRings     = 128 << 20        // for all CPUs together
	monitorHeaders   = 512
)

// Monitor shows packets as they come. What it asks for is filtered in the kernel, and is part of the filter's state: it
// holds over a change of policy, for interfaces that appear, and after a down and up.
type Monitor struct {
	options MonitorOptions
	pins    pin.Dir
	names   map[uint32]interfaceName
	shown   func(*maps.Shown) error
	packets []MonitoredPacket
	boot    time.Time

	done sync.WaitGroup

	mu       sync.Mutex  // of the following
	filter   *Filter     // of the policy in force; nil while there is none
	state    *maps.State // which outlives a policy
	reader   *maps.Reader
	buffers  *maps.ReaderBuffers
	missed   map[maps.Reason]uint64 // at the last look
	owed     map[maps.Reason]uint64 // of filters that were taken down
	rules    map[maps.Reason]string // by the reasons under which they count
	stated   uint64                 // inode of the directory of the state
	notes    []string
	absent   bool // the rule that is asked for
	followed time.Time
}

// OpenMonitor begins to show packets of the filter that runs under a pin path.
func OpenMonitor(ctx context.Context, pinPath string, o MonitorOptions) (*Monitor, error) {
	m, err := openMonitor(ctx, pinPath, o)
	return m, permissionError(err)
}

func openMonitor(ctx context.Context, pinPath string, o MonitorOptions) (*Monitor, error) {
	m := &Monitor{options: o, names: make(map[uint32]interfaceName), owed: make(map[maps.Reason]uint64)}
	m.shown = func(s *maps.Shown) error {
		m.packets = append(m.packets, m.packet(s))
		return nil
	}
	f, err := Open(ctx, pinPath)
	if err != nil {
		return nil, err
	}
	m.pins = f.pins
	filtered, err := f.pins.Interfaces()
	if err == nil {
		for _, name := range o.Interfaces {
			if !slices.Contains(filtered, name) {
				err = fmt.Errorf("%s: %w", name, ErrNotFiltered)
			}
		}
	}
	if err == nil {
		err = m.begin(ctx, f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

// begin takes a slot of a filter, which is the monitor's from then on. The lock is held, or nobody else has the monitor.
func (m *Monitor) begin(ctx context.Context, f *Filter) (err error) {
	o := &m.options
	asked := maps.Asked{From: o.From, To: o.To, Port: o.Port, ToPort: o.ToPort, Protocol: o.Protocol, Reasons: o.Reasons,
		Rules: m.passes(), Snaplen: o.Snaplen, Rate: o.Rate}
	if o.Rule == nil && o.Reasons == nil {
		for _, reason := range maps.Reasons() {
			if v := reason.Verdict(); v == maps.Drop || v == maps.WouldDrop || v == maps.Pass && o.Pass {
				asked.Reasons = append(asked.Reasons, reason)
			}
		}
	}
	if m.rules, asked.Rule, err = rulesFor(f, o.Rule); err != nil {
		return err
	}
	if asked.Interfaces, err = m.indexes(); err != nil {
		return err
	}
	// Nobody else is to claim a slot meanwhile; the pins' own lock is for changes.
	unlock, err := f.pins.LockState(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := f.now()
	if err != nil {
		return err
	}
	m.state = maps.OpenState(f.pins.Maps(), nil)
	defer func() {
		if err != nil {
			err = errors.Join(err, m.letGo())
		}
	}()
	if m.reader, err = m.state.ClaimReader(asked, now, now+f.lease()); err != nil {
		return err
	}
	ring := monitorRing
	if o.Snaplen > monitorHeaders {
		ring = monitorWideRing
	}
	if m.buffers, err = m.reader.OpenBuffers(monitorRings, ring); err != nil {
		return err
	}
	if m.missed, err = m.reader.Missed(); err != nil {
		return err
	}
	m.filter, m.stated, m.followed = f, inode(f.pins.Maps()), time.Now()
	return nil
}

// lease returns how long a reader may be silent, in jiffies.
func (f *Filter) lease() uint64 { return uint64(maps.Jiffies(monitorLease, f.running.HZ)) }

// rulesFor returns the rules in force by the reasons under which they count, and the number of one of them: an error if it
// is not in force.
func rulesFor(f *Filter, wanted *policy.Rule) (byReason map[maps.Reason]string, number uint16, err error) {
	rules, err := f.set.Rules()
	if err != nil {
		return nil, 0, err
	}
	byReason = make(map[maps.Reason]string, len(rules))
	for _, r := range rules {
		byReason[maps.RuleReason(r.ID)] = r.Rule.String()
		if wanted != nil && r.Rule.Equal(*wanted) {
			number = r.ID
		}
	}
	if wanted != nil && number == 0 {
		return byReason, 0, fmt.Errorf("%q: %w", wanted, errRuleNotInForce)
	}
	return byReason, number, nil
}

var errRuleNotInForce = errors.New("the rule is not in force: \"portcullis status\" lists those that are")

// indexes returns those of the interfaces that are asked for. One that does not exist has one that none has.
func (m *Monitor) indexes() (indexes []uint32, err error) {
	if len(m.options.Interfaces) > maps.MaxReaderInterfaces {
		return nil, fmt.Errorf("%d interfaces are asked for: at most %d can be", len(m.options.Interfaces), maps.MaxReaderInterfaces)
	}
	for _, name := range m.options.Interfaces {
		index := ^uint32(0)
		if i, err := net.InterfaceByName(name); err == nil {
			index = uint32(i.Index)
		}
		indexes = append(indexes, index)
	}
	return indexes, nil
}

// Close ends the monitor.
func (m *Monitor) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.letGo()
}

// letGo gives the slot back; the lock is held.
func (m *Monitor) letGo() error {
	var errs []error
	if m.reader != nil {
		errs = append(errs, m.reader.Close())
	}
	if m.buffers != nil {
		errs = append(errs, m.buffers.Close())
	}
	if m.state != nil {
		errs = append(errs, m.state.Close())
	}
	if m.filter != nil {
		errs = append(errs, m.filter.Close())
	}
	m.filter, m.state, m.reader, m.buffers = nil, nil, nil, nil
	return errors.Join(errs...)
}

// Run calls each with what there is to tell until ctx ends or each fails. It runs in the network namespace of the filter.
func (m *Monitor) Run(ctx context.Context, each func(Monitored) error) error {
	stop := m.renewAlways()
	defer stop()
	poll := time.NewTicker(monitorPollTime)
	defer poll.Stop()
	var checked, told time.Time
	for ended, more := false, false; !ended; {
		if !more {
			select {
			case <-ctx.Done():
			case <-poll.C:
			}
		}
		ended = ctx.Err() != nil
		if time.Since(checked) > monitorCheckTime {
			checked = time.Now()
			m.check(ctx)
		}
		out, left, err := m.collect(ended || time.Since(told) > monitorRenewTime, ended)
		if err != nil {
			return err
		}
		if more = left; out.Missed != nil {
			told = time.Now()
		}
		if len(out.Packets)+len(out.Missed)+len(out.Notes) > 0 {
			if err := each(out); err != nil {
				return err
			}
		}
	}
	return nil
}

// collect takes what there is to tell, with what was not shown if that is asked for; at the end, all of it.
func (m *Monitor) collect(withMissed, end bool) (out Monitored, more bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out.Notes, m.notes = m.notes, nil
	m.packets, m.boot = nil, time.Now().Add(-sinceBoot())
	for again := m.filter != nil; again; again = more && end {
		if end {
			if err := m.reader.Close(); err != nil { // or more would come for ever
				return out, false, err
			}
		}
		if more, err = m.buffers.Each(monitorBatch, m.shown); err != nil {
			return out, false, err
		}
	}
	out.Packets = m.packets
	slices.SortStableFunc(out.Packets, func(a, b MonitoredPacket) int { return a.Time.Compare(b.Time) })
	if withMissed {
		out.Missed, err = m.takeMissed()
	}
	return out, more, err
}

// takeMissed returns what was not shown since the last time; the lock is held.
func (m *Monitor) takeMissed() (map[maps.Reason]uint64, error) {
	if m.filter != nil {
		now, err := m.reader.Missed()
		if err != nil {
			return nil, err
		}
		for reason, n := range now {
			if n > m.missed[reason] {
				m.owed[reason] += n - m.missed[reason]
			}
		}
		m.missed = now
	}
	owed := m.owed
	m.owed = make(map[maps.Reason]uint64)
	return owed, nil
}

func (m *Monitor) packet(s *maps.Shown) MonitoredPacket {
	p := MonitoredPacket{
		Time: m.boot.Add(time.Duration(s.Time)), Interface: m.interfaceName(s.Interface), Outbound: s.Outbound,
		Reason: s.Reason, Length: int(s.Length), Ethernet: s.Ethernet, Frame: slices.Clone(s.Frame),
	}
	if p.Reason.IsRule() {
		p.Rule = cmp.Or(m.rules[p.Reason], p.Reason.String())
	}
	return p
}

// interfaceName is the name that an index had at a time.
type interfaceName struct {
	name string
	at   time.Time
}

// mostNames is how many are kept: where interfaces come and go, each has another index.
const mostNames = 4096

// interfaceName returns the name of the interface with an index, as of a second ago at most.
func (m *Monitor) interfaceName(index uint32) string {
	n := m.names[index]
	if time.Since(n.at) < time.Second {
		return n.name
	}
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		n.name = i.Name
	}
	n.name, n.at = cmp.Or(n.name, strconv.Itoa(int(index))), time.Now()
	if len(m.names) >= mostNames {
		clear(m.names)
	}
	m.names[index] = n
	return n.name
}
