// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/dryrun"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// ErrPolicyChanged is returned by an [Explainer] when what decides has changed since it was made: ask a new one.
var ErrPolicyChanged = errors.New("another policy was put in force meanwhile")

// Explainer says what becomes of packets that come in by an interface, and has no effect on those that do.
type Explainer struct {
	filter *Filter
	prog   *dryrun.Program
	spared *dryrun.Program // the same as if nothing were banned or blocked; nil: nobody has asked
	load   dryrun.Options
	device uint32
	header []byte // of Ethernet, but for the type
	links  bool   // frames of the interface begin with such a header
	rules  []maps.Rule
	read   time.Time // when the rules were

	Interface Interface
	Warnings  []string // why what is said may soon be otherwise, a sentence each
}

// Explanation is what becomes of a packet.
type Explanation struct {
	*maps.Explanation
	Rule *maps.Rule // that lets it in, or whose limit drops it; nil: none
	List string     // the block list that drops it
	Ban  *maps.Ban  // that drops it
	Flow *Flow      // the flow that it may belong to
	Live bool       // what may belong to the flow does

	// Of what is dropped for its source: what becomes of it when that ban has ended, or without the list.
	Then *Explanation
}

// Explainer loads the datapath of a filtered interface for a dry run, which takes a good part of a second.
func (f *Filter) Explainer(iface string) (*Explainer, error) {
	e, err := f.explainer(iface)
	if err != nil && !f.isCurrent() { // and what it looked at has gone
		return nil, ErrPolicyChanged
	}
	return e, permissionError(err)
}

func (f *Filter) explainer(iface string) (*Explainer, error) {
	all, err := f.Interfaces()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(i Interface) bool { return i.Name == iface })
	if i < 0 {
		if _, err := host.Device(iface); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s: %w, so whatever comes in by it passes (filtered: %s)", iface, ErrNotFiltered, strings.Join(namesOf(all), ", "))
	}
	device, err := host.Device(iface)
	if err != nil {
		return nil, err
	}
	in := f.pins.Attachment(iface, hook.Ingress)
	if in == nil || !all[i].Present {
		return nil, fmt.Errorf("%s: the filter is not in force there, so whatever comes in by it passes: run \"portcullis up\"", iface)
	}
	if device.Attrs().Flags&net.FlagUp == 0 {
		return nil, fmt.Errorf("%s is down, so nothing comes in by it: \"ip link set %s up\"", iface, quote.Shell(iface))
	}
	direction := pin.In
	if _, err := os.Stat(pin.Program(f.pins.Policy(), iface, pin.InFrags)); err == nil {
		direction = pin.InFrags
	}
	loaded, err := pin.LoadedWith(pin.Program(f.pins.Policy(), iface, direction))
	if err != nil {
		return nil, err
	}
	group, ok := f.groupOfTable(loaded.Table)
	settings := settingsFor(f.running.Policy, iface)
	if !ok || loaded.Settings != "" && loaded.Settings != settingsKey(settings) {
		return nil, fmt.Errorf("%s was renamed and still runs by the settings of its former name, which nobody knows: run \"portcullis up\"", iface)
	}
	features, err := f.set.Features()
	if err != nil {
		return nil, err
	}
	e := &Explainer{filter: f, device: uint32(device.Attrs().Index), Interface: all[i], links: loaded.Ethernet}
	if _, err := os.Stat(objectDir(f.pins.Policy())); err != nil {
		e.Warnings = append(e.Warnings, "the filter was loaded by another version of portcullis, which may decide otherwise: \"portcullis up\" loads this one's")
	}
	rules, err := e.Rules()
	if err != nil {
		return nil, err
	}
	if groupingOf(rules).of(iface) != group {
		e.Warnings = append(e.Warnings, iface+" was renamed and still runs by the rules of its former name: run \"portcullis up\"")
	}
	// A test run takes no frame without an Ethernet header. To the rest of the datapath it makes no difference.
	mac := host.MAC(device)
	own := loaded.MAC
	if !loaded.Ethernet {
		own = mac
	}
	e.header = append(append(e.header, mac[:]...), 2, 0, 0, 0, 0, 1) // from a locally administered address
	e.load = dryrun.Options{
		Constants: &maps.Constants{
			Policy: settings, HZ: f.running.HZ, Ethernet: true, MAC: own, RunSlot: loaded.RunSlot,
			MultiBuffer: direction == pin.InFrags, Features: features,
		},
		Group: group, XDP: in.IsXDP(), Generic: in.Kind == hook.XDPGeneric || all[i].Mode == ModeGeneric,
	}
	if e.prog, err = dryrun.Load(f.set, e.load); err != nil {
		return nil, err
	}
	return e, nil
}

func namesOf(interfaces []Interface) (names []string) {
	for _, i := range interfaces {
		names = append(names, i.Name)
	}
	return names
}

// groupOfTable returns the group of interfaces whose table has a pin.
func (f *Filter) groupOfTable(table string) (policy.Group, bool) {
	groups := f.set.Groups()
	i := slices.IndexFunc(groups, func(g policy.Group) bool { return maps.TablePin(g) == table })
	if i < 0 {
		return "", false
	}
	return groups[i], true
}

// Close takes the datapath of the dry run out of the kernel.
func (e *Explainer) Close() {
	e.prog.Close()
	if e.spared != nil {
		e.spared.Close()
	}
}

// Frame is what comes in: an IP packet, or a whole frame.
type Frame struct {
	Bytes    []byte
	Ethernet bool   // it begins with an Ethernet header
	Type     uint16 // where it does not, that header's type; 0: that of the IP packet
	To       Destination
}

// Destination is to whom a frame goes of which the Ethernet header is not known.
type Destination uint8

// Destinations: the interface, everybody, or a group.
const (
	ToInterface Destination = iota
	ToAll
	ToGroup
)

// ErrNoFrame is returned for what is too short for a frame.
var ErrNoFrame = errors.New("no whole Ethernet header")

const (
	ethernetHeader = 14
	typeIPv4       = 0x0800
	typeIPv6       = 0x86dd
)

// Explain returns what becomes of a frame. The error is ErrPolicyChanged where the filter is another one by now.
func (e *Explainer) Explain(frame Frame) (*Explanation, error) {
	b := frame.Bytes
	switch {
	case frame.Ethernet && e.links:
		if len(b) < ethernetHeader {
			return nil, fmt.Errorf("a frame of %d bytes has %w", len(b), ErrNoFrame)
		}
	default:
		if frame.Ethernet && len(b) >= ethernetHeader { // to an interface whose packets have no such header
			frame.Type, b = binary.BigEndian.Uint16(b[ethernetHeader-2:]), b[ethernetHeader:]
		}
		b = e.framed(b, frame.Type)
		switch frame.To {
		case ToAll:
			copy(b, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		case ToGroup:
			copy(b, []byte{0x01, 0x00, 0x5e, 0, 0, 1})
		}
	}
	run := dryrun.Frame{Bytes: b, Device: e.device}
	x, err := e.prog.Run(run)
	if err != nil {
		return nil, err
	}
	out, err := e.complete(x)
	if err == nil && (x.IsBanned() || x.IsBlocked()) {
		out.Then, err = e.then(x, run)
	}
	if !e.filter.isCurrent() { // its maps may be another policy's meanwhile
		return nil, ErrPolicyChanged
	}
	return out, err
}

// then returns what becomes of a frame whose source is banned or blocked once it is not.
func (e *Explainer) then(x *maps.Explanation, run dryrun.Frame) (*Explanation, error) {
	if x.IsBanned() {
		list, blocked, _, err := e.filter.set.BlockedBy(x.Source.Addr())
		if err != nil {
			return nil, err
		}
		if blocked {
			return &Explanation{Explanation: x.Blocked(), List: list}, nil
		}
	}
	if e.spared == nil {
		options := e.load
		options.Spared = true
		var err error
		if e.spared, err = dryrun.Load(e.filter.set, options); err != nil {
			return nil, err
		}
	}
	then, err := e.spared.Run(run)
	if err != nil {
		return nil, err
	}
	return e.complete(then)
}

// framed returns an IP packet as a frame to the interface.
func (e *Explainer) framed(packet []byte, kind uint16) []byte {
	if kind == 0 {
		if kind = typeIPv4; len(packet) > 0 && packet[0]>>4 == 6 {
			kind = typeIPv6
		}
	}
	return append(binary.BigEndian.AppendUint16(slices.Clip(e.header), kind), packet...)
}

// complete adds what stands behind the numbers of an explanation.
func (e *Explainer) complete(x *maps.Explanation) (*Explanation, error) {
	f := e.filter
	out := &Explanation{Explanation: x}
	var err error
	if out.Rule, err = e.ruleOf(x); err != nil {
		return nil, err
	}
	if out.List, err = f.set.BlockListOf(x); err != nil {
		return nil, err
	}
	if x.Flow == nil && !x.IsBanned() {
		return out, nil
	}
	clock, err := f.clock()
	if err != nil {
		return nil, err
	}
	if out.Ban, err = f.set.BanOf(clock, x); err != nil {
		return nil, err
	}
	if x.Flow != nil {
		flow := f.shown(x.Flow, clock.Jiffies)
		out.Flow, out.Live = &flow, x.Flow.Live(clock.Jiffies)
	}
	return out, nil
}

// rulesAge is how old the rules may be that an explanation names: of a recording, many do.
const rulesAge = time.Second

// Rules returns the rules in force, now or a moment ago. They are not to be changed.
func (e *Explainer) Rules() ([]maps.Rule, error) {
	if time.Since(e.read) < rulesAge {
		return e.rules, nil
	}
	rules, err := e.filter.set.Rules()
	if err == nil {
		e.rules, e.read = rules, time.Now()
	}
	return rules, err
}

// ruleOf returns the rule that decides, which may have come since they were read.
func (e *Explainer) ruleOf(x *maps.Explanation) (*maps.Rule, error) {
	id := cmp.Or(x.Reason.Rule(), x.Limited)
	if id == 0 {
		return nil, nil
	}
	for range 2 {
		rules, err := e.Rules()
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(rules, func(r maps.Rule) bool { return r.ID == id }); i >= 0 {
			return &rules[i], nil
		}
		e.read = time.Time{}
	}
	return nil, ErrPolicyChanged // it was closed meanwhile
}

// IsOwn reports whether a frame was sent by the interface.
func (e *Explainer) IsOwn(frame Frame) bool {
	return frame.Ethernet && e.links && len(frame.Bytes) >= ethernetHeader && bytes.Equal(frame.Bytes[6:12], e.header[:6])
}
